"""Finding the server programs that are installed on this machine."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from cleanroom_runtime._specs import UNKNOWN_VERSION, LocalServer

_USUAL_FOLDERS = (
    "/usr/bin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/local/sbin",
    "/opt/homebrew/bin",
    "/opt/homebrew/sbin",
)
_VERSION = re.compile(r"\d+(?:\.\d+)+")
_PATIENCE = 10.0


def installed_servers(
    program: str,
    *,
    version: Sequence[str] = ("--version",),
    folders: Sequence[str | os.PathLike[str]] = _USUAL_FOLDERS,
) -> Iterator[LocalServer]:
    """Find a server program on `PATH`, then in the folders where servers usually are.

    Args:
        program: Its name, without a folder.
        version: Arguments with which it writes its version, and ends. The first number with a dot
            in what it writes is taken.
        folders: Where to look beside `PATH`.

    Returns:
        The servers, each once, the one on `PATH` first. One that does not run is left out; the
        version of one that does not say it is `"unknown"`.
    """
    seen: set[Path] = set()
    on_path = shutil.which(program)
    candidates = [(Path(on_path), "PATH")] if on_path else []
    candidates += [(Path(folder, program), str(folder)) for folder in folders]
    for executable, source in candidates:
        real = executable.resolve()
        if real in seen or not os.access(real, os.X_OK) or not real.is_file():
            continue
        seen.add(real)
        found = _version(executable, tuple(version))
        if found is not None:
            yield LocalServer(executable, found, source)


@functools.cache
def _version(executable: Path, arguments: tuple[str, ...]) -> str | None:
    """What the server says its version is; `None` if it does not run here."""
    try:
        answer = subprocess.run(
            [executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=_PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(answer.stdout.decode(errors="replace"))
    return match.group() if match else UNKNOWN_VERSION
