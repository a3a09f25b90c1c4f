"""What gives a database its content: scripts, and migrations by any means."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import cast

from cleanroom import (
    CleanroomError,
    ConfigurationError,
    ServiceError,
    ServiceHandle,
    ValidationError,
)
from cleanroom_plugin_postgres._client import connect
from cleanroom_plugin_postgres._database import Template
from cleanroom_plugin_postgres._scripts import read_script, run_script

Migrate = Callable[[Template], object] | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""How a database gets its content: a callable, its name (`"package.module:function"`), or globs of
SQL files."""

_NAME = re.compile(r"(?P<module>\w+(\.\w+)*):(?P<function>\w+(\.\w+)*)")
_OURS = Path(__file__).parent


def check_migration(migrate: Migrate, folder: Path) -> None:
    """Find out what is wrong with a migration before there is a database.

    Raises:
        ValidationError: A glob matches nothing, or it is neither glob nor callable.
    """
    if not callable(migrate) and not _name_in(migrate):
        files(migrate, folder)


def run_migration(migrate: Migrate, folder: Path, database: Template) -> None:
    """Migrate a database.

    Args:
        migrate: By what.
        folder: What globs are relative to.
        database: What to migrate.

    Raises:
        CleanroomError: A script failed, a glob matches nothing, or a name leads to nothing.
        Exception: What a callable raises.
    """
    if named := _name_in(migrate):
        migrate = _load(*named)
    if callable(migrate):
        migrate(database)
        return
    for file in files(migrate, folder):
        database.run_script(file)


def migrate_service(service: ServiceHandle, migrate: Migrate, folder: Path) -> None:
    """Migrate a service's own database. Raises what `run_migration` does, as errors of ours."""
    database = Template.of_service(service)
    try:
        run_migration(migrate, folder, database)
    except CleanroomError:
        raise
    except Exception as exc:
        raise migration_failure(service, exc) from exc
    finally:
        database.close()


def run_scripts(service: ServiceHandle, scripts: Iterable[str | Path]) -> None:
    """Run init scripts in a service's own database: texts, and paths of files.

    Raises:
        ServiceError: The server refused a statement; names script and line.
    """
    for number, script in enumerate(scripts, 1):
        source, text = read_script(script)
        named = source if isinstance(script, Path) else f"init script {number}"
        with connect(service.metadata) as connection:  # what one sets, the next has not
            run_script(connection, text, source=named, service=service.service_name)


def _name_in(migrate: Migrate) -> tuple[str, str] | None:
    """Return module and function, where that is what was given."""
    named = _NAME.fullmatch(migrate) if isinstance(migrate, str) else None
    return (named["module"], named["function"]) if named else None


def _load(module: str, function: str) -> Callable[[Template], object]:
    name = f"{module}:{function}"
    try:
        found: object = import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as exc:
        raise ConfigurationError(
            f"migrate is {name!r}, which cannot be loaded: {exc}",
            hint="it is module:function, importable where the tests run",
        ) from exc
    if not callable(found):
        raise ConfigurationError(f"migrate is {name!r}, which is no function")
    return cast("Callable[[Template], object]", found)


def migration_failure(service: ServiceHandle, error: Exception) -> ServiceError:
    """An error that says where a migration failed, also to workers that only hear of it."""
    return ServiceError(
        f"the migration failed{_place(error)}: {type(error).__name__}: {error}",
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


def files(patterns: object, folder: Path) -> list[Path]:
    """Return the files that globs match, each glob's sorted by path.

    Raises:
        ValidationError: A glob matches nothing.
    """
    listed = patterns if isinstance(patterns, Sequence) and not isinstance(patterns, str) else None
    found: list[Path] = []
    for pattern in [patterns] if listed is None else listed:
        if not isinstance(pattern, str | os.PathLike):
            raise ValidationError(f"migrate is {patterns!r}", hint="give a callable, or globs")
        path = folder / pattern
        base = Path(path.anchor)
        matches = [each for each in base.glob(str(path.relative_to(base))) if each.is_file()]
        if not matches:
            raise ValidationError(f"{os.fspath(pattern)!r} matches no file in {folder}")
        found += sorted(matches)
    return found


def digest_of(migrate: Migrate, inputs: object, folder: Path, place: str) -> str:
    """A short digest of what migrates, where that was said, and the files it depends on."""
    digest = hashlib.sha256(f"{place}\0{_identity(migrate)}".encode())
    patterns = inputs or (() if callable(migrate) or _name_in(migrate) else migrate)
    for file in files(patterns, folder):
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
