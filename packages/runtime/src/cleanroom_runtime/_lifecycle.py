"""Stopping services and asking how they are, the same way for every plugin."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cleanroom import CleanroomError, HealthStatus, ServiceError, ServiceHandle
from cleanroom_runtime import _process
from cleanroom_runtime._hiding import hider
from cleanroom_runtime._ready import answers_within
from cleanroom_runtime._relay import stop_relays
from cleanroom_runtime._run import Run, current_run, run_of

if TYPE_CHECKING:
    from cleanroom_runtime._engine import Engine
    from cleanroom_runtime._plugin import BasePlugin

_SHARE_OF_QUESTION = 0.7
"""Of the time for a health check; the rest is for asking a container's engine."""


def stop(plugin: BasePlugin, handle: ServiceHandle) -> None:
    """Stop a service and return when it is gone.

    Raises:
        ServiceError: The handle is of no service of this plugin.
    """
    run = run_of(handle.id)
    if handle.service_name != plugin.name or not _is_service_id(handle.id):
        raise _not_ours(plugin, handle)
    if run.over():
        return  # and has taken its services with it
    if not run.request("status", id=handle.id)["known"]:
        raise _not_ours(plugin, handle)
    plugin.disconnect(handle)
    remove(run, handle.id, handle.metadata, plugin)


def remove(run: Run, service_id: str, metadata: Mapping[str, str], plugin: BasePlugin) -> None:
    """Remove a service, whatever state it is in."""
    backend = metadata["backend"]
    if backend == "container":
        if "container_id" not in metadata:
            return  # it was not launched, and what that has left is the warden's to find
        from cleanroom_runtime import _container

        _container.remove(metadata["container_id"], engine_of(metadata))
    if backend == "external" and "url" in metadata:
        plugin.detach(metadata)
    stop_relays(run, service_id)
    run.request("stop", id=service_id)


def view_of(plugin: BasePlugin, handle: ServiceHandle) -> ServiceHandle:
    """Return another service's handle as the service of this plugin will see it.

    Raises:
        ServiceError: The other service cannot be reached from there.
    """
    try:
        choice = plugin.choose()
    except CleanroomError:
        return handle  # what is wrong is for its start to say
    if choice.backend != "container" or choice.engine is None:
        return handle
    from cleanroom_runtime._view import seen_from_container

    try:
        return seen_from_container(handle, choice.engine, current_run())
    except CleanroomError as exc:
        exc.service = exc.service or plugin.name
        raise


def _is_service_id(service_id: str) -> bool:
    run_id, dash, rest = service_id.partition("-")
    return bool(dash and rest) and run_id.startswith("r")


def _not_ours(plugin: BasePlugin, handle: ServiceHandle) -> ServiceError:
    return ServiceError(
        f"cannot stop service {handle.service_name!r} with id {handle.id!r}: it is not a service "
        "that this plugin has started",
        service=plugin.name,
        hint="give the handle that start() of a plugin with this name returned",
    )


def health(plugin: BasePlugin, handle: ServiceHandle, seconds: float) -> HealthStatus:
    """Ask a service how it is, within a bound, to which importing what asks does not count."""
    deadline = time.monotonic() + seconds
    try:
        if handle.service_name != plugin.name or not _is_service_id(handle.id):
            return HealthStatus.UNKNOWN
        run = run_of(handle.id)
        if not run.alive() or not run.request("status", id=handle.id)["known"]:
            return HealthStatus.UNKNOWN
        began = time.monotonic()
        with contextlib.suppress(ImportError):  # which the question will meet as well
            plugin.warm_up()  # takes long in a process that asks for the first time
        deadline += time.monotonic() - began
        share = (deadline - time.monotonic()) * _SHARE_OF_QUESTION
        if answers_within(lambda timeout: plugin.examine(handle, timeout), share):
            return HealthStatus.HEALTHY
        if handle.metadata.get("backend") == "container":
            left = deadline - time.monotonic()
            if not answers_within(lambda timeout: _ask_engine(handle, timeout), left):
                return HealthStatus.UNKNOWN
    except CleanroomError:
        return HealthStatus.UNKNOWN
    return HealthStatus.UNHEALTHY


def _ask_engine(handle: ServiceHandle, timeout: float) -> None:
    """Raise unless the engine of a container can say anything about it."""
    from cleanroom_runtime import _container

    _container.state(handle.require("container_id"), engine_of(handle.metadata), timeout=timeout)


def log_tail(plugin: BasePlugin, metadata: Mapping[str, str], lines: int) -> str:
    """Return the last lines a service wrote, secrets removed; empty where there are none.

    Args:
        plugin: The service's.
        metadata: What is known of the service.
        lines: How many.
    """
    return hider(plugin, metadata)(written_tail(metadata, lines))


def written_tail(metadata: Mapping[str, str], lines: int) -> str:
    """Return the last lines a service wrote, as it wrote them; empty where there are none."""
    if metadata.get("backend") == "process" and "log" in metadata:
        return _process.log_tail(Path(metadata["log"]), lines)
    if metadata.get("backend") == "container" and "container_id" in metadata:
        from cleanroom_runtime import _container

        with contextlib.suppress(CleanroomError):
            return _container.log_tail(metadata["container_id"], engine_of(metadata), lines)
    return ""


def counted(text: str) -> list[str]:
    """Return the lines of a log, those that follow each other and are the same as one of them."""
    lines: list[str] = []
    for line, same in itertools.groupby(text.splitlines()):
        times = len([*same])
        lines.append(f"{line} ({times} times)" if times > 1 and line.strip() else line)
    return lines


def kill(handle: ServiceHandle) -> None:
    """End a service as a crash would."""
    if handle.require("backend") == "process":
        os.kill(int(handle.require("pid")), signal.SIGKILL)
    elif handle.require("backend") == "container":
        from cleanroom_runtime import _container

        _container.kill(handle.require("container_id"), engine_of(handle.metadata))
    else:
        raise ServiceError("somebody else runs it", service=handle.service_name)


def engine_of(metadata: Mapping[str, str]) -> Engine:
    """Return the engine a container runs on, which another setting may have replaced by now."""
    from cleanroom_runtime._engine import Engine, find_engine

    engine = find_engine()
    if isinstance(engine, Engine) and engine.url == metadata["engine"]:
        return engine
    return Engine(metadata["engine"], "the service's handle")
