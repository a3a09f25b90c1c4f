"""Keeping in memory what a container's service writes and nobody will miss."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cleanroom_runtime._asking import ask_engine, understood
from cleanroom_runtime._folders import memory_left

if TYPE_CHECKING:
    from cleanroom_runtime._container_spec import ContainerSpec
    from cleanroom_runtime._engine import Engine

MOUNT_OPTIONS = "rw,exec"
"""Those of an ordinary folder. Up to half of the engine's memory can be written there."""

_MEMORY_WANTED = 1024 * 1024 * 1024
"""Bytes of memory that an engine must have."""
_ROOT = ("", "0", "root")


def first_file(spec: ContainerSpec, engine: Engine) -> str | None:
    """Return the first file of the data that a container is to keep in memory, if it is to.

    Only root can use a folder in memory that the image prepares for its own user. A memory limit
    counts what lies in memory, so where there is one the data stays on disk.

    Raises:
        ContainerError: The engine did not answer.
    """
    if spec.data is None or spec.memory is not None:
        return None
    image: Mapping[str, Any] = _ask(engine, f"/images/{spec.image}/json").get("Config") or {}
    file = _path(spec.data, {**_variables(image), **spec.env})
    user = str(spec.user or image.get("User") or "").partition(":")[0]
    if file is None or user not in _ROOT or _is_used(posixpath.dirname(file), spec):
        return None
    return file if _has_room(engine) else None


def is_there(file: str, container_id: str, engine: Engine) -> bool:
    """Whether the image brings a file, asked of a container that was created and does not run.

    What will be mounted over it does not hide it from this question. An engine that cannot tell is
    taken to say that it is there.

    Raises:
        ContainerError: The engine did not answer.
    """
    path = f"/containers/{container_id}/archive?path={quote(file)}"
    status, _ = ask_engine(engine, "HEAD", path)
    return status != 404


def _path(named: str, variables: Mapping[str, str]) -> str | None:
    """Return the path of a file in a folder, which a variable may name."""
    first, slash, rest = named.partition("/")
    path = f"{variables.get(first[1:], '')}{slash}{rest}" if first.startswith("$") else named
    folder = posixpath.dirname(path)
    is_plain = path.startswith("/") and posixpath.normpath(path) == path and folder != "/"
    return path if is_plain else None


def _variables(image: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: value for key, _, value in (each.partition("=") for each in image.get("Env") or ())
    }


def _is_used(folder: str, spec: ContainerSpec) -> bool:
    """Whether something else was asked for, there or in it."""
    return any(f"{path}/".startswith(f"{folder}/") for path in (*spec.tmpfs, *spec.files))


def _has_room(engine: Engine) -> bool:
    memory = int(_ask(engine, "/info").get("MemTotal") or 0)
    if engine.local:  # where this process has a limit, so may the engine
        memory = min(memory, memory_left())
    return memory >= _MEMORY_WANTED


def _ask(engine: Engine, path: str) -> Mapping[str, Any]:
    answer: Any = understood(engine, *ask_engine(engine, "GET", path))
    return answer or {}
