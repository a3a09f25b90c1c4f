"""What a new process does before it becomes a server: it brings the server's data there."""

from __future__ import annotations

import os
import sys

from ._pack import unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def prepare(
    copy: Sequence[str], owner: Sequence[int], directories: Sequence[str], others: int
) -> None:
    """Bring a prepared directory there, and hand the service's directories over.

    What goes wrong is written to the standard error stream, and ends this process.

    Args:
        copy: The prepared directory, packed or not, and where to; or nothing.
        owner: Uid and gid of who is to own the directories; or nothing.
        directories: Those of the service.
        others: How many processes are starting at the same time, for each of which a processor is
            left.
    """
    try:
        if copy:
            source, target = copy
            _bring(source, target, others)
        if owner:
            uid, gid = owner
            for directory in directories:
                _hand_over(directory, uid, gid)
    except (OSError, ValueError) as exc:
        os.write(sys.stderr.fileno(), f"preparing the server's files failed: {exc}\n".encode())
        os._exit(1)


def _bring(source: str, target: str, others: int) -> None:
    if os.path.isdir(source):
        import shutil

        shutil.copytree(source, target, symlinks=True)
    else:
        unpack(source, target, with_a_fork=_has_processors(2 + others))


def _has_processors(number: int) -> bool:
    if sys.platform == "linux":
        found = len(os.sched_getaffinity(0))
    else:
        found = os.cpu_count() or 1
    return found >= number


def _hand_over(directory: str, uid: int, gid: int) -> None:
    os.chown(directory, uid, gid)
    for place, folders, files in os.walk(directory):
        for name in folders + files:
            os.chown(os.path.join(place, name), uid, gid, follow_symlinks=False)
