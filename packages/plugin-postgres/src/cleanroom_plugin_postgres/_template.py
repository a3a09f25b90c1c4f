"""Templates: migrated once for all workers of a run, and cloned for every test."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cleanroom import CleanroomError, ServiceError, ServiceHandle, ValidationError
from cleanroom_plugin_postgres import _databases
from cleanroom_plugin_postgres._database import Template, as_template, template_name
from cleanroom_runtime import run_of

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._plugin import PostgresPlugin
    from cleanroom_runtime.fixtures import ServiceFixtures

Migrate = Callable[[Template], object] | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""How a template gets its content: a callable, or globs of SQL files."""


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
            run in the order of their paths; or a callable that is given the template (`.url`,
            `.url_for()`, `.connect()`, `.run_script()`) and migrates it by any means.
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
        return _migrated(handle, migrate, folder, _digest(migrate, inputs, folder, place))

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
            _run(migrate, folder, made)
            made.seal()
        except BaseException as exc:
            _discard(made, exc)
            if isinstance(exc, CleanroomError) or not isinstance(exc, Exception):
                raise
            raise _failure(service, exc) from exc
        return name

    run_of(service.id).once(f"template/{service.id}/{name}", make)
    return Template(as_template(service, name))


def _run(migrate: Migrate, folder: Path, made: Template) -> None:
    if callable(migrate):
        migrate(made)
        return
    for file in _files(migrate, folder):
        made.run_script(file)


def _discard(made: Template, error: BaseException) -> None:
    try:
        made.discard()
    except Exception as exc:  # noqa: BLE001 - the first error is the one to tell
        error.add_note(f"and the half-made template could not be dropped: {exc}")


def _failure(service: ServiceHandle, error: Exception) -> ServiceError:
    """An error that says where a migration failed, also to workers that only hear of it."""
    return ServiceError(
        f"migrating the template failed{_place(error)}: {type(error).__name__}: {error}",
        service=service.service_name,
        hint="the tests that need the template fail with this error; nothing is left of it",
    )


def _place(error: Exception) -> str:
    """Where in the user's own code an error came up: the innermost frame in no library."""
    libraries = (sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"), str(_OURS))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(libraries):
            return f" at {frame.filename}:{frame.lineno}"
    return ""


_OURS = Path(__file__).parent


def _files(patterns: object, folder: Path) -> list[Path]:
    """Return the files that globs match, each glob's sorted by path.

    Raises:
        ValidationError: A glob matches nothing.
    """
    listed = patterns if isinstance(patterns, Sequence) and not isinstance(patterns, str) else None
    files: list[Path] = []
    for pattern in [patterns] if listed is None else listed:
        if not isinstance(pattern, str | os.PathLike):
            raise ValidationError(f"migrate is {patterns!r}", hint="give a callable, or globs")
        path = folder / pattern
        base = Path(path.anchor)
        found = sorted(each for each in base.glob(str(path.relative_to(base))) if each.is_file())
        if not found:
            raise ValidationError(f"{os.fspath(pattern)!r} matches no file in {folder}")
        files += found
    return files


def _digest(migrate: Migrate, inputs: object, folder: Path, place: str) -> str:
    """A short digest of what migrates, where that was said, and the files it depends on."""
    digest = hashlib.sha256(f"{place}\0{_identity(migrate)}".encode())
    patterns = inputs or (() if callable(migrate) else migrate)
    for file in _files(patterns, folder):
        digest.update(f"\0{file}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _identity(migrate: object) -> str:
    """What tells callables apart, the same in every worker."""
    if isinstance(migrate, functools.partial):
        return f"{_identity(migrate.func)} {migrate.args!r} {migrate.keywords!r}"
    if callable(migrate):
        kind = type(migrate).__qualname__
        module = getattr(migrate, "__module__", "")
        cells = [cell.cell_contents for cell in getattr(migrate, "__closure__", None) or ()]
        bound = [getattr(migrate, "__defaults__", None), cells]
        return f"{module}.{getattr(migrate, '__qualname__', kind)} {bound!r}"
    return repr(migrate)
