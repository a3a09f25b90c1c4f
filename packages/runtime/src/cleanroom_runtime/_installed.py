"""Finding the server programs that are installed on this machine."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from cleanroom_runtime import _small_files
from cleanroom_runtime._caches import cache_root, is_fresh_wanted
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
        answer = ask_program(executable, *version)
        if answer is not None:
            match = _VERSION.search(answer)
            yield LocalServer(executable, match.group() if match else UNKNOWN_VERSION, source)


@functools.cache
def ask_program(executable: Path, *arguments: str) -> str | None:
    """Return what a program writes, on either stream, when it is run with these arguments.

    It is not run again in this process. Neither is it in later ones, as long as its file is the
    same, if it is no script, and no link to a program of another name, which may answer for
    several: so ask it only for what does not change either, such as its version.

    Args:
        executable: The program's file.
        arguments: With which it writes something, and ends.

    Returns:
        What it wrote; `None` where it does not run here, or does not end.
    """
    root = cache_root()
    if root is None or _is_script(executable) or executable.resolve().name != executable.name:
        return _run(executable, arguments)[0]
    asked = "\0".join((str(executable), *arguments))
    digest = hashlib.sha256(asked.encode(errors="surrogateescape")).hexdigest()
    file = root / _small_files.PROGRAMS / f"{digest[:24]}.json"
    try:
        status = executable.stat()
    except OSError:
        return None
    stamp = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    known = None if is_fresh_wanted() else _small_files.read(file)
    if isinstance(known, dict) and known.get("stamp") == stamp:
        return str(known["answer"])
    answer, succeeded = _run(executable, arguments)
    if succeeded and answer is not None:
        _small_files.write(file, {"stamp": stamp, "answer": answer})
    return answer


def _is_script(executable: Path) -> bool:
    """Whether other files say what it does."""
    with contextlib.suppress(OSError), executable.open("rb") as file:
        return file.read(2) == b"#!"
    return False


def _run(executable: Path, arguments: Sequence[str]) -> tuple[str | None, bool]:
    """Run a program. Returns what it wrote, and whether it succeeded."""
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
        return None, False
    return answer.stdout.decode(errors="replace"), answer.returncode == 0
