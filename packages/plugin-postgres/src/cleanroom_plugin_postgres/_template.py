"""Templates: migrated once for all workers of a run, and cloned for every test."""

from __future__ import annotations

import hashlib
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from cleanroom import CleanroomError, ServiceError, ServiceHandle
from cleanroom_plugin_postgres._database import Migrate, Template, migrate_with, sql_files
from cleanroom_runtime import run_of


def template(migrate: Migrate, inputs: Sequence[str] = ()) -> Callable[..., Iterator[Template]]:
    """Make a `postgres_template` fixture.

    Assign the result to that name in a `conftest.py`::

        postgres_template = template(migrate="migrations/*.sql")

    Args:
        migrate: Glob or globs of SQL files, relative to the conftest's folder and run in sorted
            order; or a callable that is given the template (`.url`, `.connect()`,
            `.run_script()`) and migrates it by any means.
        inputs: Globs of the files the result depends on, relative to the conftest's folder. By
            default those of `migrate`.

    Migrations run once per run, whatever the number of workers.
    """
    folder = Path(sys._getframe(1).f_globals["__file__"]).parent

    @pytest.fixture(scope="session")
    def postgres_template(postgres_service: ServiceHandle) -> Iterator[Template]:
        migrated = _migrated(postgres_service, migrate, list(inputs), folder)
        yield migrated
        migrated.close()

    return postgres_template


def own_template(service: ServiceHandle) -> Template:
    """Return a template of this process's own, which stays what the service starts with."""
    return Template(service, _name(service, secrets.token_hex(3)))


def _migrated(
    service: ServiceHandle, migrate: Migrate, inputs: list[str], folder: Path
) -> Template:
    """Migrate a template, or wait for the worker that does."""
    name = _name(service, _digest(migrate, inputs, folder))

    def make() -> str:
        template = Template(service, name)
        try:
            migrate_with(migrate, folder)(template)
            template.seal()
        except BaseException as exc:
            template.discard()
            if isinstance(exc, CleanroomError) or not isinstance(exc, Exception):
                raise
            raise ServiceError(
                f"migrating the template failed with {type(exc).__name__}: {exc}",
                service=service.service_name,
                hint=f"see what {migrate!r} does; the traceback above leads to it",
            ) from exc
        return name

    run_of(service.id).once(f"template/{service.id}/{name}", make)
    return Template.migrated(service, name)


def _name(service: ServiceHandle, suffix: str) -> str:
    return f"{service.require('database_name')}_template_{suffix}"


def _digest(migrate: Migrate, inputs: list[str], folder: Path) -> str:
    """A short digest of where the migration stands and of the files it depends on."""
    digest = hashlib.sha256(f"{folder}\0{_identity(migrate)}".encode())
    patterns = inputs or ([] if callable(migrate) else migrate)
    for file in sql_files(patterns, folder):
        digest.update(f"\0{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _identity(migrate: Migrate) -> str:
    if callable(migrate):
        module = getattr(migrate, "__module__", "")
        return f"{module}.{getattr(migrate, '__qualname__', type(migrate).__qualname__)}"
    return str(migrate)
