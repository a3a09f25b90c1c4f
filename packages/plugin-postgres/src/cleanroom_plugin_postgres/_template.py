"""Templates: migrated once for all workers of a run, and cloned for every test."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cleanroom import ServiceHandle
from cleanroom_plugin_postgres import _databases
from cleanroom_plugin_postgres._database import Template, as_template
from cleanroom_plugin_postgres._inputs import Migrate, Migration, Patterns
from cleanroom_plugin_postgres._migrate import make_template
from cleanroom_plugin_postgres._report import was_ready
from cleanroom_runtime import run_of
from cleanroom_runtime.fixtures import EXPECTS

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._plugin import PostgresPlugin
    from cleanroom_runtime.fixtures import ServiceFixtures


def template(
    migrate: Migrate,
    inputs: Patterns = (),
    *,
    service: str | PostgresPlugin | None = None,
) -> Callable[..., Template]:
    """Make a `postgres_template` fixture, or that of another service.

    Assign the result to that name in a `conftest.py`::

        postgres_template = template(migrate="migrations/*.sql")

    Args:
        migrate: Glob or globs of SQL files, relative to the conftest's folder, each glob's files
            run in the order of their paths; or a callable, or its name (`"shop.db:migrate"`), that
            is given the template (`.url`, `.url_for()`, `.connect()`, `.run_script()`) and
            migrates it by any means.
        inputs: Globs of all files the result depends on, relative to the conftest's folder; of SQL
            files, by default those of `migrate`. The file a function is in counts as well.
        service: As for `postgres_fixtures`. The fixture has to be named for the service and
            `_template`: `reporting_template` for `"reporting"`.

    One migration serves all workers of a run. What it made for a server that
    runs as a process is kept for later runs, until the server, its settings or the inputs change;
    of a function only where `inputs` were given, and it is bound to nothing but plain values. Such
    a function runs when the server starts, and once more where tests use the template if it fails.
    `--cleanroom-fresh` makes it anew.
    """
    caller = inspect.stack(0)[1].frame
    folder = Path(caller.f_globals["__file__"]).absolute().parent
    place = f"{caller.f_code.co_filename}:{caller.f_lineno}"
    migration = Migration(migrate, folder, inputs, place)

    @pytest.fixture(scope="session")
    def postgres_template(postgres_service: ServiceHandle) -> Template:
        return _migrated(postgres_service, migration)

    @pytest.fixture(scope="session")
    def template_of_service(cleanroom_services: ServiceFixtures) -> Template:
        return _migrated(cleanroom_services.start("postgres", service), migration)

    fixture = template_of_service if service else postgres_template
    setattr(fixture, EXPECTS, migration)
    return fixture


@contextmanager
def drafts() -> Iterator[list[Template]]:
    """While a fixture overrides `postgres_template`: what it writes to is dropped at the end.

    Yields:
        The templates it has written to. One that is split off before the end is not dropped.
    """
    written: list[Template] = []
    Template.drafts.append(written)
    try:
        yield written
    finally:
        Template.drafts.remove(written)
        for each in written:
            each.discard()


def drop(template: Template) -> None:
    """Drop a sealed template that no test will ask for any more."""
    handle = template.seal()
    name = handle.metadata.get("template")
    if name:
        with _databases.admin_connection(handle.metadata) as admin:
            _databases.unseal(admin, name)
            _databases.drop(admin, name)


def _migrated(service: ServiceHandle, migration: Migration) -> Template:
    """Migrate a template, or wait for the worker that does; one that was ready is only named."""
    name = _databases.template_name(service.require("database_name"), migration.digest)
    if not was_ready(service, name):
        key = f"template/{service.id}/{name}"
        run_of(service.id).once(key, lambda: make_template(service, migration))
    return Template(as_template(service, name))
