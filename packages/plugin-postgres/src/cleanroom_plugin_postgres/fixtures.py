"""The fixtures `postgres_service`, `postgres_template` and `postgres_db`.

Nothing is imported here until a test asks: this module is loaded in every pytest run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from cleanroom_runtime.fixtures import ServiceFixtures

if TYPE_CHECKING:
    from cleanroom import ServiceHandle
    from cleanroom_plugin_postgres import Database, Template


@pytest.fixture(scope="session")
def postgres_service(cleanroom_services: ServiceFixtures) -> Iterator[ServiceHandle]:
    """The handle of the run's PostgreSQL server."""
    handle = cleanroom_services.start("postgres")
    yield handle
    from cleanroom_plugin_postgres._isolation import close

    close(handle)


@pytest.fixture(scope="session")
def postgres_template(postgres_service: ServiceHandle) -> Iterator[Template]:
    """What every `postgres_db` is a clone of: empty, but for the service's init scripts."""
    from cleanroom_plugin_postgres._template import own_template

    template = own_template(postgres_service)
    yield template
    template.close()


@pytest.fixture
def postgres_db(
    request: pytest.FixtureRequest,
    cleanroom_services: ServiceFixtures,
    postgres_template: Template,
) -> Iterator[Database]:
    """A clean database of the test's own. Its URL stays the same from test to test."""
    from cleanroom_plugin_postgres import Database
    from cleanroom_plugin_postgres._isolation import keep

    with cleanroom_services.isolate(postgres_template.seal()) as handle:
        database = Database(handle)
        yield database
        database.close()
        if cleanroom_services.keeps(request.node):
            kept = keep(handle, database.name)
            cleanroom_services.note_kept(request.node, kept)
