"""Making fixtures like `redis_service` and `redis_db`, for any service.

Whoever imports this module for a `conftest.py` imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import pytest

from cleanroom_runtime.fixtures import Scope, ServiceFixtures, chosen, name_of, several

if TYPE_CHECKING:
    from cleanroom import ServiceHandle
    from cleanroom_plugin_redis import Database, RedisPlugin


class RedisFixtures(NamedTuple):
    """Fixtures of one Redis service, to be given names in a `conftest.py`.

    Attributes:
        service: The handle of the server, for the session.
        db: An empty database.
    """

    service: Callable[..., ServiceHandle]
    db: Callable[..., Iterator[Database]]


def redis_fixtures(*services: str | RedisPlugin, scope: Scope = "function") -> RedisFixtures:
    """Make fixtures like `redis_service` and `redis_db`.

    Assign those that are wanted to names in a `conftest.py`::

        limits_db = redis_fixtures("limits").db

    Args:
        services: The name of a declared service, or a `RedisPlugin` for one that is not declared.
            By default the one that `redis_db` serves. Of several, each in turn: who asks for the
            fixture is run with each of them.
        scope: How long a `db` is used before the next one is empty. One of another scope than
            `"function"` is a database of its own; services that depend on the server see that of
            the function.
    """
    params = several(services)

    @pytest.fixture(scope="session", params=params, ids=name_of)
    def service(
        request: pytest.FixtureRequest, cleanroom_services: ServiceFixtures
    ) -> ServiceHandle:
        """The handle of the run's Redis server."""
        return cleanroom_services.start("redis", chosen(request, services))

    if services:

        @pytest.fixture(scope=scope, params=params, ids=name_of)
        def db(
            request: pytest.FixtureRequest, cleanroom_services: ServiceFixtures
        ) -> Iterator[Database]:
            """An empty database of the test's own. Its URL stays the same from test to test."""
            handle = cleanroom_services.start("redis", chosen(request, services))
            yield from _database(request, cleanroom_services, handle)

    else:

        @pytest.fixture(scope=scope)
        def db(
            request: pytest.FixtureRequest,
            cleanroom_services: ServiceFixtures,
            redis_service: ServiceHandle,
        ) -> Iterator[Database]:
            """An empty database of the test's own. Its URL stays the same from test to test."""
            yield from _database(request, cleanroom_services, redis_service)

    return RedisFixtures(service, db)


def _database(
    request: pytest.FixtureRequest, services: ServiceFixtures, service: ServiceHandle
) -> Iterator[Database]:
    from cleanroom_plugin_redis import Database
    from cleanroom_plugin_redis._isolation import keep

    with services.isolate(service, request.node) as handle:
        database = Database(handle)
        yield database
        database.close()
        if services.keeps(request.node):
            services.note_kept(request.node, keep(handle))
