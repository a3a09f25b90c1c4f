"""The URLs of services for programs: as environment variables, and in a file of them."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cleanroom import ConfigurationError

if TYPE_CHECKING:
    from cleanroom import ServiceHandle

_FIRST_LINE = "# Written by `cleanroom up`, which removes this file when it ends."


def variable_of(service: str) -> str:
    """Return the environment variable with the URL of a service: `DB_URL`."""
    return f"{re.sub(r'[^A-Za-z0-9_]', '_', service).upper()}_URL"


def check_variables(services: Iterable[str]) -> None:
    """Raise `ConfigurationError` where two services would have the same variable."""
    taken: dict[str, str] = {}
    for service in services:
        other = taken.setdefault(variable_of(service), service)
        if other != service:
            raise ConfigurationError(
                f"{variable_of(service)} would be the URL of {other!r} as well",
                service=service,
                hint="rename one of them",
            )


def variables(handles: Mapping[str, ServiceHandle]) -> dict[str, str]:
    """Return the environment variables for services; none for those without a URL."""
    return {
        variable_of(name): handle.metadata["url"]
        for name, handle in handles.items()
        if "url" in handle.metadata
    }


class EnvironmentFile:
    """A file of environment variables, for a shell's `.` and for what reads `.env` files.

    It appears whole, so that one can wait for it, and only its owner can read it.

    Args:
        path: Where. Nothing is written yet.

    Raises:
        ConfigurationError: There is a file that somebody else has written, or no such folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.parent.is_dir():
            raise ConfigurationError(f"{path.parent} is no folder", hint="make it, or name another")
        if os.path.lexists(path) and not self._is_ours():
            raise ConfigurationError(
                f"{path} is there already, and cleanroom has not written it",
                hint="name another file: it would be overwritten, and removed in the end",
            )

    @contextlib.contextmanager
    def holding(self, values: Mapping[str, str]) -> Iterator[None]:
        """Write the variables, each as `NAME=value`, and remove the file when the context ends.

        A file that somebody has put in its place meanwhile is left alone.

        Raises:
            ConfigurationError: It cannot be written.
        """
        written = self._write(values)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if _identity(self._path.lstat()) == written:
                    self._path.unlink()

    def _write(self, values: Mapping[str, str]) -> tuple[int, int]:
        lines = [_FIRST_LINE, *(f"{name}={shlex.quote(value)}" for name, value in values.items())]
        staging = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        try:
            fd = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "w", encoding="utf-8") as file:
                file.write("\n".join([*lines, ""]))
            identity = _identity(staging.lstat())
            staging.rename(self._path)
        except OSError as exc:
            staging.unlink(missing_ok=True)
            what = f"{self._path} cannot be written: {exc.strerror or exc}"
            raise ConfigurationError(what, hint="name another file") from exc
        return identity

    def _is_ours(self) -> bool:
        """Whether an earlier `cleanroom up` has written it, which was killed."""
        if not stat.S_ISREG(self._path.lstat().st_mode):
            return False
        with self._path.open(encoding="utf-8", errors="replace") as file:
            return file.readline().rstrip("\n") == _FIRST_LINE


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
