"""What a pytest run leaves for the next one of the same tests: how it launched servers.

A note lies in the cache, in a folder that only this user can read. It says which services the run
has started and, where the plugin of one allows that, how its process was launched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cleanroom_runtime import _small_files

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_FORMAT = 1


class Noted(NamedTuple):
    """What a note says of one service.

    Attributes:
        launch: How its process was launched, as `_ahead` writes it; `None` where that was not, or
            must not be, noted.
        in_vain: Whether that was tried again ahead of time, and the environment was another one
            when the service was asked for.
    """

    launch: str | None = None
    in_vain: bool = False


def read(note: Path) -> dict[str, Noted]:
    """Return what a note says of each service; nothing where there is none, or it is damaged."""
    known = _small_files.read(note)
    try:
        if known and known["format"] == _FORMAT:
            return {str(name): Noted(*noted) for name, noted in known["services"].items()}
    except (KeyError, TypeError, AttributeError):
        pass
    return {}


def add(note: Path, service: str, noted: Noted) -> None:
    """Note how a service was started."""
    if read(note).get(service) != noted:
        with _alone(note):
            _write(note, {**read(note), service: noted})


def keep_only(note: Path, services: Collection[str]) -> None:
    """Forget all services but these."""
    if read(note).keys() <= set(services):
        return
    with _alone(note):
        kept = {name: noted for name, noted in read(note).items() if name in services}
        if kept:
            _write(note, kept)
        else:
            with contextlib.suppress(OSError):
                note.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(note: Path) -> Iterator[None]:
    """Let no other thread or process change notes meanwhile, wherever notes can be written."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = os.open(note.parent, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, folder)
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield


def _write(note: Path, services: Mapping[str, Noted]) -> None:
    _small_files.write(note, {"format": _FORMAT, "services": services})
