"""Data directories that hold what scripts and migrations make: made once for all runs.

What a fixture, a declaration or a plugin asks for is made in a server of its own, before the one of
the run is started: so nothing else can be in it. It is kept in the cache under a digest of the
server, its settings, and what was asked for. Extensions and libpq's variables are not part of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cleanroom import CleanroomError, ServiceError, ServiceHandle
from cleanroom_plugin_postgres import _databases
from cleanroom_plugin_postgres._cluster import Cluster, facts_of, slim
from cleanroom_plugin_postgres._inputs import Migration
from cleanroom_runtime import LocalServer, Workspace, cached_directory, run_of

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._plugin import PostgresPlugin

_NOTE = "prebuilt.json"
_FORMAT = "1"
_LOG_LINES = 40
_PATIENCE = 30.0
"""Seconds a server has to end in order."""
_OWN = "content of this run alone"


class _UncleanEndError(Exception):
    """A data directory cannot be kept as its server has left it."""


@dataclass(frozen=True)
class Content:
    """What a server is to start with.

    Attributes:
        scripts: Init scripts: texts, and paths of files.
        migration: What migrates its own database after them.
        templates: What makes further templates.
    """

    scripts: tuple[str | Path, ...]
    migration: Migration | None
    templates: tuple[Migration, ...]

    @classmethod
    def that_lasts(
        cls,
        scripts: tuple[str | Path, ...],
        migration: Migration | None,
        wishes: Iterable[object],
    ) -> Content | None:
        """Return what another run can use as well, if there is any.

        Args:
            scripts: Init scripts.
            migration: Of the service's own database. Where it does not last, nothing does.
            wishes: The migrations of templates, as fixtures have told of them.
        """
        if migration is not None and not migration.is_lasting:
            return None
        lasting = [each for each in wishes if isinstance(each, Migration) and each.is_lasting]
        try:
            digests = {each.digest: each for each in lasting}
        except CleanroomError:  # which the tests that need the template are told
            digests = {}
        templates = tuple(each for _, each in sorted(digests.items()))
        found = cls(scripts, migration, templates)
        return found if found.fills_service or templates else None

    @property
    def fills_service(self) -> bool:
        """Whether the service's own database has any of it."""
        return bool(self.scripts or self.migration)

    def digest(self, cluster: Cluster) -> str:
        """Return a digest of what the content is known to depend on, beside an empty directory.

        Raises:
            OSError: A script cannot be read.
        """
        facts = [
            _FORMAT,
            sorted(cluster.settings.items()),
            sorted(cluster.env.items()),
            [_digest_of_script(script) for script in self.scripts],
            self.migration.digest if self.migration else "",
            [each.digest for each in self.templates],
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _digest_of_script(script: str | Path) -> str:
    content = script.encode() if isinstance(script, str) else script.read_bytes()
    return hashlib.sha256(content).hexdigest()


@dataclass
class Report:
    """What came of making the content of a server.

    Attributes:
        how: In words for people.
        ready: The templates that are there.
        failed: Those whose migration has failed, with the error.
    """

    how: str
    ready: list[str] = field(default_factory=list[str])
    failed: dict[str, CleanroomError] = field(default_factory=dict[str, CleanroomError])

    def as_file(self, directory: Path) -> dict[Path, str]:
        """Return the file by which other processes of the run will know."""
        failed = {name: error.to_dict() for name, error in self.failed.items()}
        note = {"how": self.how, "ready": self.ready, "failed": failed}
        return {directory / _NOTE: json.dumps(note)}


def report_of(service: ServiceHandle) -> Mapping[str, Any]:
    """Return what a report's file says, `{}` where the server was started with no content."""
    log = service.metadata.get("log")
    try:
        note = (Path(log).with_name(_NOTE)).read_text(encoding="utf-8") if log else "{}"
    except OSError:
        return {}
    return cast("Mapping[str, Any]", json.loads(note))


def was_ready(service: ServiceHandle, template: str) -> bool:
    """Whether a template was there when the server was started.

    Raises:
        CleanroomError: Its migration has failed.
    """
    report = report_of(service)
    if template in report.get("failed", {}):
        raise CleanroomError.from_dict(report["failed"][template])
    return template in report.get("ready", ())


def find_or_build(
    plain: PostgresPlugin,
    cluster: Cluster,
    server: LocalServer,
    workspace: Workspace,
    content: Content,
) -> tuple[Path | None, Report]:
    """Return a data directory with content, to copy, as an earlier run has left it or made now.

    Args:
        plain: The same server with no content, and with another password.
        cluster: What the server is to be.
        server: By what it is run.
        workspace: Of the service it is for.
        content: What to make.

    Returns:
        The directory, if it could be made now; and what came of it.

    Raises:
        CleanroomError: An init script, or the migration of the service's own database, has failed.
    """
    report = Report("content of an earlier run")

    def build(directory: Path) -> None:
        report.how = "content kept for later runs"
        _build(plain, content, directory, report)
        slim(cluster, server, workspace, directory)

    try:
        facts = {**facts_of(cluster, server), "content": content.digest(cluster)}
        prepared = cached_directory("postgres", facts, build, workspace, patience=0)
    except TimeoutError:
        report.how = f"{_OWN}: another run makes the same at this moment"
    except CleanroomError:
        if not report.failed:
            raise
        report.how = f"{_OWN}: a migration failed"
    except OSError as exc:
        report.how = f"{_OWN}: {exc.strerror}"
    except _UncleanEndError as exc:
        report.how = f"{_OWN}: {exc}"
    else:
        if prepared.is_dir():
            report.how = f"{_OWN}: there is no room for it in a cache"
        report.ready = _names(cluster.database_name, content)
        return prepared, report
    return None, report


def _build(plain: PostgresPlugin, content: Content, directory: Path, report: Report) -> None:
    """Fill a data directory with content.

    Raises:
        CleanroomError: Something in it has failed.
    """
    service = plain.start()
    try:
        try:
            _make(service, content, report)
        except ServiceError as exc:
            exc.log_tail = exc.log_tail or plain.logs(service, _LOG_LINES)
            raise
        _check_tablespaces(service)
        for path in _shut_down(service).iterdir():
            shutil.move(path, directory / path.name)
    finally:
        plain.stop(service)


def _names(database: str, content: Content) -> list[str]:
    """Return the names of the templates that content has."""
    own = [_databases.own_template(database)] if content.fills_service else []
    return own + [_databases.template_name(database, each.digest) for each in content.templates]


def _make(service: ServiceHandle, content: Content, report: Report) -> None:
    # What this needs takes long to import.
    from cleanroom_plugin_postgres._database import as_template
    from cleanroom_plugin_postgres._migrate import fill_service, make_template

    if content.fills_service:
        fill_service(service, content.scripts, content.migration)
        service = as_template(service, _databases.seal_as_template(service))
    for each in content.templates:
        try:
            make_template(service, each)
        except CleanroomError as exc:
            database = service.require("database_name")
            report.failed[_databases.template_name(database, each.digest)] = exc
            raise


def _check_tablespaces(service: ServiceHandle) -> None:
    """Refuse content in folders of its own, which runs would share; it is removed from there."""
    with _databases.admin_connection(service.metadata) as admin:
        found = admin.execute(
            "SELECT spcname FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '/%'"
        ).fetchall()
        if not found:
            return
        others = "SELECT datname FROM pg_database WHERE datname <> ALL (%s)"
        kept = ["template0", _databases.PRISTINE, admin.info.dbname]
        for (name,) in admin.execute(others, [kept]).fetchall():
            _databases.unseal(admin, str(name))
            _databases.drop(admin, str(name))
        for (name,) in found:
            _databases.run(admin, f"DROP TABLESPACE {_databases.quote(str(name))}")
    raise _UncleanEndError("it is in a tablespace")


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
            raise _UncleanEndError(f"the server that made it did not end within {_PATIENCE:g} s")
        time.sleep(0.005)
    if status["exit_code"] != 0:
        code = status["exit_code"]
        raise _UncleanEndError(f"the server that made it ended with exit code {code}")
    return Path(str(data))
