"""A PostgreSQL server as a local process: its data directory, settings and accounts."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cleanroom import ProcessError, StartTimeoutError
from cleanroom_plugin_postgres._client import MAINTENANCE_DATABASE, load_psycopg
from cleanroom_plugin_postgres._databases import quote
from cleanroom_plugin_postgres._first_clone import pristine_spare
from cleanroom_runtime import (
    Endpoint,
    LocalServer,
    ProcessSpec,
    Workspace,
    cached_directory,
    run_program,
)

THROW_AWAY_SETTINGS: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
"""Settings for data that nobody will miss, the same on both backends."""

_SMALL_SETTINGS: Mapping[str, str] = {
    "shared_buffers": "32MB",
    "min_wal_size": "32MB",
    "dynamic_shared_memory_type": "mmap",
}
"""Settings that make a process start quickly and leave nothing outside its data directory."""

_EXTENSIONS = (
    "{root}/share/extension",
    "{root}/share/postgresql*/extension",
    "/usr/share/postgresql/{major}/extension",  # Debian, Ubuntu
    "/usr/share/postgresql{major}/extension",  # Alpine
    "/usr/share/pgsql/extension",  # Fedora
    "{root}/lib",
    "{root}/lib*/postgresql*",
    "/usr/lib/postgresql{major}",
    "/usr/lib64/pgsql",
)
"""Where extensions are installed, as far as the usual packages have them."""
_PARTS_OF_EXTENSIONS = (".control", ".sql", ".so", ".dylib")

_MAP = re.compile(r"[0-9]+_(fsm|vm)")

_SINCE: Mapping[int, Mapping[str, str]] = {
    15: {"wal_keep_size": "4MB"},  # making a clone meanwhile must not remove what is read later
    16: {"scram_iterations": "1"},  # a random password on a loopback address need not be slow
    18: {"io_method": "sync"},  # what is read is in memory
}
"""Further ones, by the major version that brought them."""


class Cluster(NamedTuple):
    """What one server is to be.

    Attributes:
        username: The superuser that `initdb` makes.
        password: Its password, set anew in each run.
        database_name: The database made beside `postgres`.
        initdb_args: Further arguments of `initdb`, as one string (`POSTGRES_INITDB_ARGS`).
        host_auth: How TCP connections prove who they are (`POSTGRES_HOST_AUTH_METHOD`).
        settings: Server settings.
        env: Environment variables of the server.
        timeout: Seconds each command that prepares the data directory may take.
        spare: Whether it starts with a clone for the first test.
    """

    username: str
    password: str
    database_name: str
    initdb_args: str
    host_auth: str
    settings: Mapping[str, str]
    env: Mapping[str, str]
    timeout: float
    spare: bool = False


def empty_directory(cluster: Cluster, server: LocalServer, workspace: Workspace) -> Path:
    """Return a prepared data directory, to copy, with what a `Cluster` has and no content."""
    return cached_directory(
        "postgres",
        {**facts_of(cluster, server), "spare": str(cluster.spare)},
        lambda directory: _initialise(cluster, server, workspace, directory),
        workspace,
    )


def process_spec(
    cluster: Cluster,
    server: LocalServer,
    workspace: Workspace,
    prepared: Path,
    files: Mapping[Path, str],
) -> ProcessSpec:
    """Return the server as a process that runs on a copy of a prepared data directory."""
    data = workspace.data / "postgres"
    settings = {
        **THROW_AWAY_SETTINGS,
        **_SMALL_SETTINGS,
        **_brought_by(int(server.major)),
        **cluster.settings,
        "listen_addresses": "127.0.0.1",
        "port": str(workspace.port),
        "unix_socket_directories": str(workspace.directory),
    }
    return ProcessSpec(
        argv=[str(server.executable), "-D", str(data), *as_arguments(settings)],
        env=cluster.env,
        files=files,
        copy=(prepared, data),
        stop_signal="SIGQUIT",
        ahead=True,
        setup=lambda endpoint, timeout: _set_password(cluster, endpoint, timeout),
    )


def _brought_by(major: int) -> dict[str, str]:
    return {
        key: value
        for since, brought in _SINCE.items()
        if major >= since
        for key, value in brought.items()
    }


def as_arguments(settings: Mapping[str, str]) -> list[str]:
    """Return server settings as arguments of the `postgres` command."""
    return [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]


def facts_of(cluster: Cluster, server: LocalServer) -> dict[str, str]:
    """Everything the prepared data directory depends on."""
    status = server.executable.stat()
    return {
        "executable": str(server.executable),
        "size": str(status.st_size),
        "modified": str(status.st_mtime_ns),
        "version": server.version,
        "username": cluster.username,
        "database": cluster.database_name,
        "initdb_args": cluster.initdb_args,
        "host_auth": cluster.host_auth,
        "layout": "5",
    }


def extensions_of(server: LocalServer) -> list[tuple[str, int, int]]:
    """Return name, size and time of change of what extensions have installed beside a server."""
    root = glob.escape(str(server.executable.parent.parent))
    found: list[tuple[str, int, int]] = []
    for pattern in _EXTENSIONS:
        for folder in glob.glob(pattern.format(root=root, major=server.major)):
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(_PARTS_OF_EXTENSIONS):
                        status = entry.stat()
                        found.append((entry.name, status.st_size, status.st_mtime_ns))
    return sorted(found)


def _initialise(
    cluster: Cluster, server: LocalServer, workspace: Workspace, directory: Path
) -> None:
    """Make a data directory with the superuser, the database, and the spare if one is wanted."""
    initdb = server.executable.parent / "initdb"
    _run(
        workspace,
        [
            str(initdb), "-D", str(directory), "--username", cluster.username,
            f"--auth-host={cluster.host_auth}", "--encoding=UTF8", "--locale=C.UTF-8",
            "--lc-messages=C", "--no-sync", "--wal-segsize=1", *shlex.split(cluster.initdb_args),
            "--auth-local=trust",  # last, as the private socket is how the password is set
        ],
        timeout=cluster.timeout,
    )  # fmt: skip
    made = [f"CREATE DATABASE {quote(cluster.database_name)}"]
    if cluster.spare:
        made += pristine_spare(cluster.database_name)
    _run(
        workspace,
        [str(server.executable), "--single", "-D", str(directory), "-F", MAINTENANCE_DATABASE],
        "".join(f"{statement}\n" for statement in made),
        timeout=cluster.timeout,
    )
    slim(cluster, server, workspace, directory)


def slim(cluster: Cluster, server: LocalServer, workspace: Workspace, directory: Path) -> None:
    """Remove from a data directory what a start only copies: old log, and maps of free space.

    The server does without a free space map and a visibility map, and makes them anew when it
    vacuums ("Database Physical Storage" in PostgreSQL's manual).
    """
    reset = server.executable.parent / "pg_resetwal"
    if reset.exists():
        _run(workspace, [str(reset), "-D", str(directory)], timeout=cluster.timeout)
    for file in directory.rglob("*_*"):
        if _MAP.fullmatch(file.name):
            file.unlink()


def _run(workspace: Workspace, command: list[str], text: str = "", *, timeout: float) -> None:
    """Run a program of the server's, as the user the server will run as."""
    program = Path(command[0])
    try:
        code, output = run_program(
            workspace, command, text=text, env={**os.environ, "LC_ALL": "C"}, timeout=timeout
        )
    except TimeoutError as exc:
        raise StartTimeoutError(
            f"{program.name} was not done after {timeout:g} s",
            hint=f"it is {program}; if it only needs more time, raise start_timeout",
        ) from exc
    if code != 0 or "ERROR:" in output or "FATAL:" in output:
        raise ProcessError(
            f"{program.name} failed with exit code {code}",
            log_tail="\n".join(output.splitlines()[-20:]),
            hint=f"it is {program}; POSTGRES_INITDB_ARGS is passed to initdb as it is",
        )


def _set_password(cluster: Cluster, endpoint: Endpoint, timeout: float) -> None:
    """Set this run's password over the server's private socket.

    The server is given its hash, because what it is told may end in its log. It is the first
    transaction of the server: by that `_first_clone` knows a clone of an untouched template.
    """
    load_psycopg()
    import psycopg
    from psycopg import sql

    with psycopg.connect(
        host=str(endpoint.socket_directory),
        port=endpoint.port,
        user=cluster.username,
        dbname=MAINTENANCE_DATABASE,
        autocommit=True,
        connect_timeout=max(1, round(timeout)),
    ) as connection:
        secret = connection.pgconn.encrypt_password(
            cluster.password.encode(), cluster.username.encode()
        )
        connection.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                sql.Identifier(cluster.username), sql.Literal(secret.decode())
            )
        )
