"""Starting, stopping and asking services, the same way for every plugin."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cleanroom import (
    CleanroomError,
    ContainerError,
    HealthStatus,
    ProcessError,
    ServiceError,
    ServiceHandle,
    spans,
)
from cleanroom._secrets import is_secret_key, scrub
from cleanroom_runtime import _container, _process
from cleanroom_runtime._choose import Choice
from cleanroom_runtime._engine import Engine, NoEngine, find_engine
from cleanroom_runtime._ready import answers_within, wait_ready
from cleanroom_runtime._run import Run, current_run, run_of
from cleanroom_runtime._specs import Endpoint

if TYPE_CHECKING:
    from cleanroom_runtime._plugin import BasePlugin

_LOG_LINES = 40
_PORT_ATTEMPTS = 5


def start(plugin: BasePlugin, span: spans.Span) -> ServiceHandle:
    """Start a service and return its handle once it answers.

    Raises:
        CleanroomError: It could not be started; what had been started is stopped.
    """
    try:
        choice = plugin.choose()
        span.set("cleanroom.service.backend", choice.backend)
        handle = _start_at_a_free_port(plugin, choice)
    except CleanroomError as exc:
        exc.service = exc.service or plugin.name
        raise
    span.set("server.address", handle.host)
    span.set("server.port", handle.port)
    return handle


def _start_at_a_free_port(plugin: BasePlugin, choice: Choice) -> ServiceHandle:
    """Start, with another port when the one chosen was taken before the server bound it."""
    attempt = 1
    while True:
        try:
            return _Start(plugin, choice, current_run()).run_through()
        except ProcessError as exc:
            if attempt == _PORT_ATTEMPTS or not _process.port_was_taken(exc.log_tail or ""):
                raise
            attempt += 1


class _Start:
    """One attempt to start one service."""

    def __init__(self, plugin: BasePlugin, choice: Choice, run: Run) -> None:
        self._plugin = plugin
        self._choice = choice
        self._run = run
        self._id = run.new_service_id()
        self._metadata = {"backend": choice.backend, "backend_reason": choice.reason}
        self._deadline = time.monotonic() + plugin.start_timeout

    def run_through(self) -> ServiceHandle:
        ways = {
            "process": self._launch_process,
            "container": self._launch_container,
            "external": self._attach,
        }
        try:
            ways[self._choice.backend]()
            handle = ServiceHandle(self._id, self._plugin.name, self._metadata)
            self._metadata |= self._plugin.prepare(handle)
        except BaseException as exc:
            if isinstance(exc, CleanroomError):
                exc.backend = exc.backend or self._choice.backend
                if isinstance(exc, ServiceError) and exc.log_tail is None:
                    exc.log_tail = log_tail(self._metadata, _LOG_LINES) or None
            try:
                _remove(self._run, self._id, self._metadata, self._plugin)
            except CleanroomError as second:
                exc.add_note(f"and what had been started could not be removed: {second}")
            raise
        return ServiceHandle(self._id, self._plugin.name, self._metadata)

    def _launch_process(self) -> None:
        server = self._choice.server
        assert server is not None  # noqa: S101 - a choice of this backend has one
        with spans.provision_span():
            place = _process.find_place(
                self._run, self._id, server, refuses_root=self._plugin.refuses_root
            )
            spec = self._plugin.process(place.server, place.workspace)
        with spans.launch_span(), spans.process_start_span(str(server.executable)) as span:
            self._metadata["version"] = server.version
            self._note(place.endpoint)
            confirm = _process.launch(self._run, self._id, place, spec)
            self._plugin.warm_up()
            self._metadata["pid"] = confirm()
            span.set("process.pid", int(self._metadata["pid"]))
        with spans.wait_ready_span():
            if spec.setup is not None:
                setup = spec.setup
                self._wait(lambda _timeout: setup(place.endpoint))
            self._wait(self._probe)

    def _launch_container(self) -> None:
        choice = self._choice
        assert choice.engine is not None  # noqa: S101 - a choice of this backend has both
        assert choice.image is not None  # noqa: S101
        with spans.provision_span():
            spec = self._plugin.container(choice.image)
        with spans.launch_span():
            self._note(
                _container.launch(self._run, self._id, self._plugin.name, spec, choice.engine)
            )
            self._plugin.warm_up()
        with spans.wait_ready_span():
            self._wait(self._probe)

    def _attach(self) -> None:
        assert self._choice.url is not None  # noqa: S101 - a choice of this backend has one
        self._run.request("register", id=self._id)
        with spans.wait_ready_span():
            self._metadata |= self._plugin.attach(self._choice.url, self._id)
            self._wait(self._probe)

    def _note(self, endpoint: Endpoint) -> None:
        self._metadata |= endpoint.facts
        self._metadata |= {"host": endpoint.host, "port": str(endpoint.port)}
        self._metadata |= self._plugin.describe(endpoint.host, endpoint.port)

    def _probe(self, timeout: float) -> None:
        self._plugin.probe(self._metadata, timeout)

    def _wait(self, ask: Callable[[float], None]) -> None:
        wait_ready(ask, self._check_alive, self._deadline, self._plugin.start_timeout)

    def _check_alive(self) -> None:
        """Raise when the service has ended."""
        if self._choice.backend == "process":
            code = _process.exit_code(self._run, self._id)
            if code is not None:
                raise ProcessError(
                    f"the server ended while it was starting, {_process.describe_exit(code)}",
                    log_tail=log_tail(self._metadata, _LOG_LINES),
                    hint=f"it was started from {self._metadata['executable']}",
                )
        elif self._choice.engine is not None:
            state = _container.state(self._metadata["container_id"], self._choice.engine)
            if not state.running:
                killed = " (out of memory)" if state.oom_killed else ""
                raise ContainerError(
                    f"the container ended while it was starting, with exit code "
                    f"{state.exit_code}{killed}",
                    log_tail=log_tail(self._metadata, _LOG_LINES),
                )


def stop(plugin: BasePlugin, handle: ServiceHandle) -> None:
    """Stop a service and return when it is gone.

    Raises:
        ServiceError: The handle is of no service of this plugin.
    """
    run = run_of(handle.id)
    if handle.service_name != plugin.name or not _is_service_id(handle.id):
        raise _not_ours(plugin, handle)
    if not run.alive():
        return  # a run that is over has taken its services with it
    if not run.request("status", id=handle.id)["known"]:
        raise _not_ours(plugin, handle)
    _remove(run, handle.id, handle.metadata, plugin)


def _remove(run: Run, service_id: str, metadata: Mapping[str, str], plugin: BasePlugin) -> None:
    """Remove a service, whatever state it is in."""
    if metadata["backend"] == "container" and "container_id" in metadata:
        _container.remove(metadata["container_id"], _engine())
    if metadata["backend"] == "external":
        plugin.detach(metadata)
    run.request("stop", id=service_id)


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
    """Ask a service how it is, within a bound."""
    deadline = time.monotonic() + seconds
    try:
        if handle.service_name != plugin.name or not _is_service_id(handle.id):
            return HealthStatus.UNKNOWN
        run = run_of(handle.id)
        if not run.alive() or not run.request("status", id=handle.id)["known"]:
            return HealthStatus.UNKNOWN
        left = deadline - time.monotonic()
        if answers_within(lambda timeout: plugin.probe(handle.metadata, timeout), left * 0.9):
            return HealthStatus.HEALTHY
        if handle.metadata.get("backend") == "container" and isinstance(find_engine(), NoEngine):
            return HealthStatus.UNKNOWN
    except CleanroomError:
        return HealthStatus.UNKNOWN
    return HealthStatus.UNHEALTHY


def log_tail(metadata: Mapping[str, str], lines: int) -> str:
    """Return the last lines a service wrote, secrets removed; empty where there are none."""
    text = ""
    if metadata.get("backend") == "process" and "log" in metadata:
        text = _process.log_tail(Path(metadata["log"]), lines)
    elif metadata.get("backend") == "container" and "container_id" in metadata:
        with contextlib.suppress(CleanroomError):
            text = _container.log_tail(metadata["container_id"], _engine(), lines)
    return scrub(text, [value for key, value in metadata.items() if is_secret_key(key)])


def kill(handle: ServiceHandle) -> None:
    """End a service as a crash would."""
    if handle.require("backend") == "process":
        os.kill(int(handle.require("pid")), signal.SIGKILL)
    elif handle.require("backend") == "container":
        _container.kill(handle.require("container_id"), _engine())
    else:
        raise ServiceError("somebody else runs it", service=handle.service_name)


def _engine() -> Engine:
    engine = find_engine()
    if isinstance(engine, NoEngine):
        raise ContainerError(f"no container engine answers: {engine.reason}", backend="container")
    return engine
