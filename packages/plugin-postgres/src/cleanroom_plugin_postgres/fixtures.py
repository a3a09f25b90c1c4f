"""The fixtures `postgres_service`, `postgres_template` and `postgres_db`.

Nothing is imported here until a test asks: this module is loaded in every pytest run.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
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
def postgres_template(postgres_service: ServiceHandle) -> Template:
    """What every `postgres_db` is a clone of: empty, but for the service's init scripts.

    A fixture of the same name that asks for this one may write to it and return it.
    """
    from cleanroom_plugin_postgres import Template

    return Template(postgres_service)


@pytest.fixture
def postgres_db(
    request: pytest.FixtureRequest,
    cleanroom_services: ServiceFixtures,
    postgres_template: Template,
) -> Iterator[Database]:
    """A clean database of the test's own. Its URL stays the same from test to test."""
    from cleanroom_plugin_postgres import Database
    from cleanroom_plugin_postgres._isolation import keep

    sealed = _checked(postgres_template).seal()
    with cleanroom_services.isolate(sealed, request.node) as handle:
        database = Database(handle)
        yield database
        database.close()
        if cleanroom_services.keeps(request.node):
            kept = keep(handle, database.name)
            cleanroom_services.note_kept(request.node, kept)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Give each fixture that overrides `postgres_template` what it wrote, and nobody else."""
    if fixturedef.argname != "postgres_template":
        return (yield)
    from cleanroom_plugin_postgres import Template, _template

    with _template.drafts():
        result = yield
        if not isinstance(result, Template) or not result.is_draft or not fixturedef.cached_result:
            return result
        own = result.split_off()
        fixturedef.cached_result = (own, fixturedef.cached_result[1], None)
    if request.scope != "session":
        fixturedef.addfinalizer(lambda: _template.drop(own))
    return own


def _checked(template: object) -> Template:
    """Raise a clear error for what is no template, such as the `None` of a fixture."""
    from cleanroom import ConfigurationError
    from cleanroom_plugin_postgres import Template

    if not isinstance(template, Template):
        raise ConfigurationError(
            f"the fixture postgres_template gave {template!r} and not a template",
            plugin="postgres",
            hint="end it with: return postgres_template",
        )
    return template
