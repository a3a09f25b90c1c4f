"""Making fixtures like `postgres_service`, `postgres_template` and `postgres_db`, for any service.

Whoever imports this module for a `conftest.py` imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import pytest

from cleanroom_runtime.fixtures import Scope, ServiceFixtures, chosen, name_of, sealed, several

if TYPE_CHECKING:
    from cleanroom import ServiceHandle
    from cleanroom_plugin_postgres import Database, PostgresPlugin, Template


class PostgresFixtures(NamedTuple):
    """Fixtures of one PostgreSQL service, to be given names in a `conftest.py`.

    Attributes:
        service: The handle of the server, for the session.
        template: What each `db` is a clone of, for the session; see `postgres_fixtures`.
        db: A clean database.
    """

    service: Callable[..., ServiceHandle]
    template: Callable[..., Template]
    db: Callable[..., Iterator[Database]]


def postgres_fixtures(
    *services: str | PostgresPlugin, scope: Scope = "function"
) -> PostgresFixtures:
    """Make fixtures like `postgres_service`, `postgres_template` and `postgres_db`.

    Assign those that are wanted to names in a `conftest.py`::

        reporting_db = postgres_fixtures("reporting").db

    Args:
        services: The name of a declared service, or a `PostgresPlugin` for one that is not
            declared. By default the one that `postgres_db` serves. Of several, each in turn: who
            asks for the fixture is run with each of them.
        scope: How long a `db` is used before the next one is clean. One of another scope than
            `"function"` is a database of its own; services that depend on the server see that of
            the function.

    What a `db` is a clone of says a fixture that is named for its service and `_template`, such as
    `reporting_template = template("reporting/*.sql", service="reporting")`, if there is one.
    """
    params = several(services)

    @pytest.fixture(scope="session", params=params, ids=name_of)
    def service(
        request: pytest.FixtureRequest, cleanroom_services: ServiceFixtures
    ) -> ServiceHandle:
        """The handle of the run's PostgreSQL server."""
        return cleanroom_services.start("postgres", chosen(request, services))

    if services:

        @pytest.fixture(scope="session", params=params, ids=name_of)
        def template(
            request: pytest.FixtureRequest, cleanroom_services: ServiceFixtures
        ) -> Template:
            """What every database of a test is a clone of."""
            return _untouched(cleanroom_services.start("postgres", chosen(request, services)))

        @pytest.fixture(scope=scope, params=params, ids=name_of)
        def db(
            request: pytest.FixtureRequest, cleanroom_services: ServiceFixtures
        ) -> Iterator[Database]:
            """A clean database of the test's own. Its URL stays the same from test to test."""
            handle = cleanroom_services.start("postgres", chosen(request, services))
            source = cleanroom_services.source(handle, request)
            yield from _database(request, cleanroom_services, source)

    else:

        @pytest.fixture(scope="session")
        def template(postgres_service: ServiceHandle) -> Template:
            """What every `postgres_db` is a clone of: empty, but for the service's init scripts.

            A fixture of the same name that asks for this one may write to it and return it.
            """
            return _untouched(postgres_service)

        @pytest.fixture(scope=scope)
        def db(
            request: pytest.FixtureRequest,
            cleanroom_services: ServiceFixtures,
            postgres_template: Template,
        ) -> Iterator[Database]:
            """A clean database of the test's own. Its URL stays the same from test to test."""
            source = sealed("postgres_template", postgres_template)
            yield from _database(request, cleanroom_services, source)

    return PostgresFixtures(service, template, db)


def _untouched(service: ServiceHandle) -> Template:
    from cleanroom_plugin_postgres import Template

    return Template(service)


def _database(
    request: pytest.FixtureRequest, services: ServiceFixtures, source: ServiceHandle
) -> Iterator[Database]:
    from cleanroom_plugin_postgres import Database
    from cleanroom_plugin_postgres._isolation import keep

    with services.isolate(source, request.node) as handle:
        database = Database(handle)
        yield database
        database.close()
        if services.keeps(request.node):
            services.note_kept(request.node, keep(handle, database.name))
