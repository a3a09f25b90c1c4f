"""What can be done in the container of a running service."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import overload

from cleanroom import ServiceError, ServiceHandle
from cleanroom_runtime import _check, _lifecycle
from cleanroom_runtime import _container_arguments as checked
from cleanroom_runtime._inside import ExecResult, Inside

FileContent = bytes | str | os.PathLike[str]
"""What a file in a container has: bytes, text, or that of a local file or folder."""


class ContainerAccess:
    """Commands and files in the container of a service, whichever plugin has started it."""

    @staticmethod
    def exec(
        handle: ServiceHandle,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        timeout: float = 60.0,
    ) -> ExecResult:
        """Run a command in the container of a service, whichever plugin has started it.

        Args:
            handle: The service's.
            command: Program and arguments. No error shows the arguments.
            env: Environment variables beside the container's own.
            user: User to run it as; the container's when not given.
            cwd: Working directory inside; the container's when not given.
            timeout: Seconds it may take.

        Returns:
            Its exit code, whatever that is, and what it wrote.

        Raises:
            ContainerError: The container does not run, or the command was not done in time.
            ServiceError: The service runs in no container.
        """
        argv = checked.command("command", command)
        seconds = _check.seconds("timeout", timeout)
        variables = checked.env(env or {})
        return inside_of(handle).run(argv, env=variables, user=user, cwd=cwd, timeout=seconds)

    @staticmethod
    def copy_to(handle: ServiceHandle, source: FileContent, path: str) -> None:
        """Put a file, or a local folder, into the container of a service.

        Args:
            handle: The service's.
            source: See `with_file`.
            path: Where it will be, absolute.

        Raises:
            ContainerError: It could not be written; so in a folder in memory (tmpfs).
            ServiceError: The service runs in no container.
        """
        inside_of(handle).write(checked.inside(path), checked.content(path, source))

    @overload
    @staticmethod
    def copy_from(handle: ServiceHandle, path: str) -> bytes: ...

    @overload
    @staticmethod
    def copy_from(handle: ServiceHandle, path: str, folder: str | os.PathLike[str]) -> Path: ...

    @staticmethod
    def copy_from(
        handle: ServiceHandle, path: str, folder: str | os.PathLike[str] | None = None
    ) -> bytes | Path:
        """Return a file of the container of a service, or copy it, or a folder, to this machine.

        Args:
            handle: The service's.
            path: Where it is inside, absolute. Where it is a link, what that leads to is copied.
            folder: Local folder to copy it into, made if need be. Symbolic links in what is copied
                stay links, wherever they lead; devices are left out.

        Returns:
            What the file has; or the path of the copy.

        Raises:
            ContainerError: It is not there, or could not be copied.
            ServiceError: The service runs in no container.
        """
        inside = inside_of(handle)
        if folder is None:
            return inside.read(checked.inside(path))
        return inside.fetch(checked.inside(path), Path(folder))


def inside_of(handle: ServiceHandle) -> Inside:
    """Return the inside of the container of a service.

    Raises:
        ServiceError: It runs in none.
    """
    if handle.metadata.get("backend") != "container":
        raise ServiceError(
            "it runs in no container",
            service=handle.service_name,
            backend=handle.metadata.get("backend"),
            hint="commands can be run, and files copied, where the handle's backend is container",
        )
    engine = _lifecycle.engine_of(handle.metadata)
    return Inside(handle.require("container_id"), engine, handle.service_name)
