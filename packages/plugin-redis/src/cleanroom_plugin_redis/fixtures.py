"""The fixtures `redis_service` and `redis_db`.

Nothing is imported here until a test asks: this module is loaded in every pytest run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cleanroom import ServiceHandle
    from cleanroom_plugin_redis import Database
    from cleanroom_runtime.fixtures import ServiceFixtures


@pytest.fixture(scope="session")
def redis_service(cleanroom_services: ServiceFixtures) -> Iterator[ServiceHandle]:
    """The handle of the run's Redis server."""
    handle = cleanroom_services.start("redis")
    yield handle
    from cleanroom_plugin_redis._isolation import close

    close(handle)


@pytest.fixture
def redis_db(
    request: pytest.FixtureRequest,
    cleanroom_services: ServiceFixtures,
    redis_service: ServiceHandle,
) -> Iterator[Database]:
    """An empty database of the test's own. Its URL stays the same from test to test."""
    from cleanroom_plugin_redis import Database
    from cleanroom_plugin_redis._isolation import keep

    with cleanroom_services.isolate(redis_service, request.node) as handle:
        database = Database(handle)
        yield database
        database.close()
        if cleanroom_services.keeps(request.node):
            cleanroom_services.note_kept(request.node, keep(handle))
