"""What gives a database its content: scripts, and migrations by any means."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cleanroom import CleanroomError, ConfigurationError, ServiceError, ServiceHandle
from cleanroom_plugin_postgres import _databases
from cleanroom_plugin_postgres._client import connect
from cleanroom_plugin_postgres._database import Template
from cleanroom_plugin_postgres._inputs import Migration, files
from cleanroom_plugin_postgres._scripts import read_script, run_script

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection

_OURS = Path(__file__).parent
_DEFAULTS = """
SELECT setdatabase, setrole, setconfig FROM pg_catalog.pg_db_role_setting ORDER BY 1, 2
"""


def run_migration(migration: Migration, database: Template) -> None:
    """Migrate a database.

    Raises:
        CleanroomError: A script failed, a glob matches nothing, or a name leads to nothing.
        Exception: What a callable raises.
    """
    migrate = load(*migration.name) if migration.name else migration.migrate
    if callable(migrate):
        migrate(database)
        return
    found = files("migrate", migrate, migration.folder)
    _run_each(found, database.handle.service_name, lambda: database.connect(autocommit=True))


def fill_service(
    service: ServiceHandle, scripts: Iterable[str | Path], migration: Migration | None
) -> None:
    """Run init scripts in a service's own database, then its migration.

    Raises:
        CleanroomError: The server refused a statement, or the migration failed.
    """
    _run_each(scripts, service.service_name, lambda: connect(service.metadata))
    if migration:
        _migrate_service(service, migration)


def _migrate_service(service: ServiceHandle, migration: Migration) -> None:
    database = Template.of_service(service)
    try:
        run_migration(migration, database)
    except CleanroomError:
        raise
    except Exception as exc:
        raise migration_failure(service, exc) from exc
    finally:
        database.close()


def _run_each(
    scripts: Iterable[str | Path], service: str, connect: Callable[[], Connection]
) -> None:
    """Run each script in a session that is as a new one: what one sets, the next has not."""
    connection: Connection | None = None
    defaults: object = None
    try:
        for number, script in enumerate(scripts, 1):
            source, text = read_script(script)
            if connection is None:
                connection = connect()
                defaults = _defaults(connection)
            named = source if isinstance(script, Path) else f"init script {number}"
            run_script(connection, text, source=named, service=service)
            if not _is_as_new(connection, defaults):
                connection.close()
                connection = None
    finally:
        if connection is not None:
            connection.close()


def _is_as_new(connection: Connection, defaults: object) -> bool:
    """Make a session forget what was set in it. Whether a new one would be the same."""
    import psycopg

    try:
        connection.execute("DISCARD ALL", prepare=False)
        return _defaults(connection) == defaults
    except psycopg.Error:  # it has ended itself
        return False


def _defaults(connection: Connection) -> object:
    """What databases and roles have set for new sessions."""
    return connection.execute(_DEFAULTS, prepare=False).fetchall()


def load(module: str, function: str) -> Callable[[Template], object]:
    """Return the function of a migration that was given by its name.

    Raises:
        ConfigurationError: There is none of that name.
    """
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


def make_template(service: ServiceHandle, migration: Migration) -> str:
    """Make the sealed template that a migration makes, a clone of the service's own one at first.

    Where it fails, nothing is left of it.

    Returns:
        The template's name.

    Raises:
        CleanroomError: It failed.
    """
    name = _databases.template_name(service.require("database_name"), migration.digest)
    with _databases.admin_connection(service.metadata) as admin:
        _databases.drop(admin, name)  # what a worker that died in the middle has left
    made = Template(service, writable=True)
    made.begin(name)
    try:
        run_migration(migration, made)
        made.seal()
    except BaseException as exc:
        _discard(made, exc)
        if isinstance(exc, CleanroomError) or not isinstance(exc, Exception):
            raise
        raise migration_failure(service, exc) from exc
    return name


def _discard(made: Template, error: BaseException) -> None:
    try:
        made.discard()
    except Exception as exc:  # noqa: BLE001 - the first error is the one to tell
        error.add_note(f"and the half-made template could not be dropped: {exc}")


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
