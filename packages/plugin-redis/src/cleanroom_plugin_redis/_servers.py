"""Finding the Redis and Valkey servers installed on this machine."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from cleanroom_runtime import LocalServer, ask_program

Kind = Literal["redis", "valkey"]

_PROGRAMS: dict[str, Kind] = {"redis-server": "redis", "valkey-server": "valkey"}
_USUAL_FOLDERS = (
    "/usr/bin",
    "/usr/local/bin",
    "/usr/sbin",
    "/opt/homebrew/bin",
    "/opt/redis/bin",
    "/opt/valkey/bin",
)
_VERSION = re.compile(r"server v=(\d+(?:\.\d+)*)")


def local_servers(kind: Kind | None = None) -> Iterator[LocalServer]:
    """Find servers: the `embedded` extra's, then those on `PATH`, then in the usual folders.

    Args:
        kind: Only servers of this kind; either will do if none is given.
    """
    seen: set[Path] = set()
    for executable, its_kind, source in _candidates():
        real = executable.resolve()
        if real in seen or kind not in (None, its_kind) or not os.access(real, os.X_OK):
            continue
        seen.add(real)
        version = _version(executable)
        if version:
            parts = (executable.parent,) if source == "the embedded extra" else ()
            yield LocalServer(executable, version, f"{its_kind} of {source}", parts)


def _candidates() -> Iterator[tuple[Path, Kind, str]]:
    spec = find_spec("cleanroom_valkey_server")
    if spec is not None and spec.origin:
        # The package is not imported: only the program it carries counts.
        embedded = Path(spec.origin).parent / "bin" / "valkey-server"
        if embedded.is_file():
            yield embedded, "valkey", "the embedded extra"
    for program, kind in _PROGRAMS.items():
        found = shutil.which(program)
        if found:
            yield Path(found), kind, "PATH"
    for folder in _USUAL_FOLDERS:
        for program, kind in _PROGRAMS.items():
            yield Path(folder, program), kind, folder


def _version(executable: Path) -> str | None:
    """What the server says its version is; `None` if it does not run here."""
    match = _VERSION.search(ask_program(executable, "--version") or "")
    return match.group(1) if match else None
