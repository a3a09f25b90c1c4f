"""Data directories that hold what scripts and migrations make: made once for all runs.

What a fixture, a declaration or a plugin asks for is made in a server of its own, before the one of
the run is started: so nothing else can be in it. It is kept in the cache under a digest of the
server with its extensions, its settings, libpq's variables, and what was asked for.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from cleanroom import CleanroomError, ServiceError, ServiceHandle
from cleanroom_plugin_postgres import _databases, _first_clone
from cleanroom_plugin_postgres._asked import Content
from cleanroom_plugin_postgres._cluster import (
    Cluster,
    empty_directory,
    facts_of,
    process_spec,
    slim,
)
from cleanroom_plugin_postgres._inputs import Migration
from cleanroom_plugin_postgres._plugin import PostgresPlugin
from cleanroom_plugin_postgres._report import Report
from cleanroom_runtime import (
    BusyError,
    LocalServer,
    ProcessSpec,
    Workspace,
    cached_directory,
    run_of,
)

_LOG_LINES = 40
_PATIENCE = 30.0
"""Seconds a server has to end in order."""
_LARGEST_SPARE = 64 * 1024 * 1024
"""Bytes of a template that each server has a clone of from the start, which is copied with it."""
_OWN = "content of this run alone"


class _NotUsableError(Exception):
    """A server cannot start with what was made; it has to be made in place."""


def find_or_build(
    cluster: Cluster, server: LocalServer, workspace: Workspace, content: Content, name: str
) -> tuple[Path | None, Report]:
    """Return a data directory with content, to copy, as an earlier run has left it or made now.

    Args:
        cluster: What the server is to be.
        server: By what it is run.
        workspace: Of the service it is for.
        content: What to make.
        name: The service's name.

    Returns:
        The directory, if it could be made now; and what came of it.

    Raises:
        CleanroomError: An init script, or the migration of the service's own database, has failed.
    """
    report = Report("content of an earlier run")
    digest = ""
    doubts: list[str] = []

    def build(directory: Path) -> None:
        report.how = "content kept for later runs"
        _build(_Builder(name, cluster, server), content, directory, report, spare=cluster.spare)
        slim(cluster, server, workspace, directory)
        doubts.extend(_doubts(content, digest, cluster, server))

    try:
        digest = content.digest(cluster, server)
        facts = {**facts_of(cluster, server), "content": digest, "spare": str(cluster.spare)}
        prepared = cached_directory(
            "postgres", facts, build, workspace, patience=0, may_keep=lambda: not doubts
        )
    except BusyError:
        report.how = f"{_OWN}: it is being made for another server at this moment"
    except CleanroomError:
        if not report.failed:
            raise
        report.how = f"{_OWN}: a migration failed"
    except OSError as exc:
        report.how = f"{_OWN}: {exc.strerror or exc}"
    except _NotUsableError as exc:
        report.how = f"{_OWN}: {exc}"
    else:
        if prepared.is_dir():
            report.how = f"{_OWN}: {doubts[0] if doubts else 'the cache cannot take it'}"
        report.ready = _names(cluster.database_name, content)
        return prepared, report
    return None, report


def _doubts(content: Content, digest: str, cluster: Cluster, server: LocalServer) -> Iterator[str]:
    """Say why what was made may be another than what the digest is of."""
    from cleanroom_plugin_postgres._migrate import load

    for each in content.migrations:
        if each.name and not each.is_of(load(*each.name)):
            yield f"the function {':'.join(each.name)} comes from another file"
        if not each.is_unchanged:
            yield "an input was changed while it was migrated"
    if content.digest(cluster, server) != digest:
        yield "a script or an extension was changed while it was made"


class _Builder(PostgresPlugin):
    """The server that content is made in: like the one it is for, and filled by nobody else."""

    def __init__(self, name: str, cluster: Cluster, server: LocalServer) -> None:
        super().__init__(
            name, None, cluster.database_name, backend="process", start_timeout=cluster.timeout
        )
        self._username = cluster.username
        self._cluster = cluster._replace(password=self._password, spare=False)
        self._server = server

    def local_servers(self) -> Iterable[LocalServer]:
        return (self._server,)

    def process(self, server: LocalServer, workspace: Workspace) -> ProcessSpec:
        prepared = empty_directory(self._cluster, server, workspace)
        return process_spec(self._cluster, server, workspace, prepared, {})


def _build(
    builder: _Builder, content: Content, directory: Path, report: Report, *, spare: bool
) -> None:
    """Fill a data directory with content.

    Raises:
        CleanroomError: Something in it has failed.
        _NotUsableError: It is to be made in place.
    """
    service = builder.start()
    try:
        try:
            _make(service, content, report, spare=spare)
        except BaseException as exc:
            if isinstance(exc, ServiceError):
                exc.log_tail = exc.log_tail or builder.logs(service, _LOG_LINES)
            with contextlib.suppress(Exception):  # the first error is the one to tell
                _drop_tablespaces(service)
            raise
        if _drop_tablespaces(service):
            raise _NotUsableError("it is in a tablespace")
        data = _shut_down(service)
        _check_whole_server(data)
        for path in data.iterdir():
            shutil.move(path, directory / path.name)
    finally:
        builder.stop(service)


def _names(database: str, content: Content) -> list[str]:
    """Return the names of the templates that content has."""
    own = [_databases.own_template(database)] if content.fills_service else []
    return own + [_databases.template_name(database, each.digest) for each in content.templates]


def _make(service: ServiceHandle, content: Content, report: Report, *, spare: bool) -> None:
    # What this needs takes long to import.
    from cleanroom_plugin_postgres._database import as_template
    from cleanroom_plugin_postgres._migrate import fill_service, make_template

    database = service.require("database_name")
    if content.fills_service:
        with _tried_again_in_place(content.migration):
            fill_service(service, content.scripts, content.migration)
        service = as_template(service, _databases.seal_as_template(service))
    for each in content.templates:
        with _tried_again_in_place(each):
            try:
                make_template(service, each)
            except CleanroomError as exc:
                if each.is_by_files:
                    report.failed[_databases.template_name(database, each.digest)] = exc
                raise
    if spare:
        _make_spare(service, _names(database, content)[-1])


def _make_spare(service: ServiceHandle, template: str) -> None:
    """Make a clone for the first test of what it will ask for, unless that is large."""
    database = service.require("database_name")
    with _databases.admin_connection(service.metadata) as admin:
        size = admin.execute("SELECT pg_database_size(%s)", [template]).fetchall()[0][0]
        if int(str(size)) <= _LARGEST_SPARE:
            _first_clone.make_spare(admin, database, template)


@contextlib.contextmanager
def _tried_again_in_place(migration: Migration | None) -> Iterator[None]:
    """Have a function that fails be called where the service is used.

    It may need a fixture that is not set up yet, or skip the tests, as it can there only.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as exc:
        if migration is None or migration.is_by_files:
            raise
        raise _NotUsableError("a migration failed") from exc


def _drop_tablespaces(service: ServiceHandle) -> bool:
    """Drop content in folders of its own, which runs would share. Whether there is any."""
    with _databases.admin_connection(service.metadata) as admin:
        found = admin.execute(
            "SELECT spcname FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '/%'"
        ).fetchall()
        if not found:
            return False
        others = "SELECT datname FROM pg_database WHERE datname <> ALL (%s)"
        kept = ["template0", _databases.PRISTINE, admin.info.dbname]
        for (name,) in admin.execute(others, [kept]).fetchall():
            _databases.unseal(admin, str(name))
            _databases.drop(admin, str(name))
        for (name,) in found:
            _databases.run(admin, f"DROP TABLESPACE {_databases.quote(str(name))}")
    return True


def _check_whole_server(data: Path) -> None:
    """Refuse what a migration did to the whole server, which would be in force from the start."""
    own = (data / "postgresql.auto.conf").read_text(errors="replace").splitlines()
    if any(line.strip() and not line.startswith("#") for line in own):
        raise _NotUsableError("a migration says ALTER SYSTEM")
    if any((data / "pg_replslot").iterdir()):
        raise _NotUsableError("a migration made a replication slot")


def _shut_down(service: ServiceHandle) -> Path:
    """End a server in order, and return its data directory, which has no password of this run."""
    user = _databases.quote(service.require("username"))
    with _databases.admin_connection(service.metadata) as admin:
        ((data,),) = admin.execute("SHOW data_directory").fetchall()
        _databases.run(admin, f"ALTER ROLE {user} PASSWORD NULL")
    os.kill(int(service.require("pid")), signal.SIGINT)  # ends sessions, and writes all there is
    run, deadline = run_of(service.id), time.monotonic() + _PATIENCE
    while (status := run.request("status", id=service.id))["running"]:
        if time.monotonic() > deadline:
            raise _NotUsableError(f"the server that made it did not end within {_PATIENCE:g} s")
        time.sleep(0.005)
    if status["exit_code"] != 0:
        code = status["exit_code"]
        raise _NotUsableError(f"the server that made it ended with exit code {code}")
    return Path(str(data))
