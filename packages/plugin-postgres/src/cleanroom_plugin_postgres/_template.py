"""Templates: migrated once for all workers of a run, and cloned for every test."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cleanroom import CleanroomError, ServiceHandle
from cleanroom_plugin_postgres import _databases
from cleanroom_plugin_postgres._database import Template, as_template, template_name
from cleanroom_plugin_postgres._migrate import Migrate, digest_of, migration_failure, run_migration
from cleanroom_runtime import run_of

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._plugin import PostgresPlugin
    from cleanroom_runtime.fixtures import ServiceFixtures


def template(
    migrate: Migrate,
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
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
        inputs: Globs of the files the result depends on, relative to the conftest's folder. By
            default those of `migrate`.
        service: As for `postgres_fixtures`. The fixture has to be named for the service and
            `_template`: `reporting_template` for `"reporting"`.

    Migrations run once per run, whatever the number of workers.
    """
    caller = inspect.stack(0)[1].frame
    folder = Path(caller.f_globals["__file__"]).absolute().parent
    place = f"{caller.f_code.co_filename}:{caller.f_lineno}"

    def migrated(handle: ServiceHandle) -> Template:
        return _migrated(handle, migrate, folder, digest_of(migrate, inputs, folder, place))

    @pytest.fixture(scope="session")
    def postgres_template(postgres_service: ServiceHandle) -> Template:
        return migrated(postgres_service)

    @pytest.fixture(scope="session")
    def template_of_service(cleanroom_services: ServiceFixtures) -> Template:
        return migrated(cleanroom_services.start("postgres", service))

    return template_of_service if service else postgres_template


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


def _migrated(service: ServiceHandle, migrate: Migrate, folder: Path, digest: str) -> Template:
    """Migrate a template, or wait for the worker that does."""
    name = template_name(service, digest)

    def make() -> str:
        with _databases.admin_connection(service.metadata) as admin:
            _databases.drop(admin, name)  # what a worker that died in the middle has left
        made = Template(service, writable=True)
        made.begin(name)
        try:
            run_migration(migrate, folder, made)
            made.seal()
        except BaseException as exc:
            _discard(made, exc)
            if isinstance(exc, CleanroomError) or not isinstance(exc, Exception):
                raise
            raise migration_failure(service, exc) from exc
        return name

    run_of(service.id).once(f"template/{service.id}/{name}", make)
    return Template(as_template(service, name))


def _discard(made: Template, error: BaseException) -> None:
    try:
        made.discard()
    except Exception as exc:  # noqa: BLE001 - the first error is the one to tell
        error.add_note(f"and the half-made template could not be dropped: {exc}")
