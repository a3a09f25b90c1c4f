"""Starting services, the same way for every plugin."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from cleanroom import (
    CleanroomEnvironment,
    CleanroomError,
    ContainerError,
    ProcessError,
    ServiceError,
    ServiceHandle,
    StartTimeoutError,
    spans,
)
from cleanroom_runtime import _ahead, _process
from cleanroom_runtime._account import account_for
from cleanroom_runtime._choose import Choice
from cleanroom_runtime._hiding import hide_secrets_in, remember_secrets
from cleanroom_runtime._lifecycle import counted, log_tail, remove
from cleanroom_runtime._ready import wait_ready
from cleanroom_runtime._relay import hint_of_unused
from cleanroom_runtime._run import Run, current_run
from cleanroom_runtime._specs import UNKNOWN_VERSION

if TYPE_CHECKING:
    from cleanroom_runtime._engine import Engine
    from cleanroom_runtime._plugin import BasePlugin
    from cleanroom_runtime._specs import Endpoint, ProcessSpec

_LOG_LINES = 40
_LOOKED_AT = 400  # lines, of which many may be the answers to our questions
_PORT_ATTEMPTS = 5
_ENGINE_PATIENCE = 20.0


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
    if plugin.database_system is not None:
        span.set("db.system.name", plugin.database_system)
        span.set("db.namespace", handle.require("database_name"))
    return handle


def look_ahead(plugin: BasePlugin) -> None:
    """Find out, while the run's warden starts, what is remembered until a start asks for it."""
    with contextlib.suppress(CleanroomError):  # which the start will meet as well
        if plugin.choose().backend == "process":
            account_for(refuses_root=plugin.refuses_root)


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
        self._container_port = 0
        self._metadata = {"backend": choice.backend, "backend_reason": choice.reason}

    def run_through(self) -> ServiceHandle:
        try:
            self._bring_up()
        except BaseException as exc:
            self._give_up(exc)
            raise
        self._metadata.setdefault("version", UNKNOWN_VERSION)
        remember_secrets(self._metadata)
        return self._handle()

    def _bring_up(self) -> None:
        ways = {
            "process": self._launch_process,
            "container": self._launch_container,
            "external": self._attach,
        }
        try:
            if self._choice.backend != "process":
                _ahead.note_started(self._run, self._plugin)
            ways[self._choice.backend]()
            self._metadata |= self._plugin.prepare(self._handle())
        except CleanroomError:
            raise
        except Exception as exc:
            what = f"starting it raised {type(exc).__name__}: {str(exc).strip()}"
            raise ServiceError(what) from exc

    def _give_up(self, exc: BaseException) -> None:
        """Say in the error what is known about the service, and leave nothing of it."""
        if isinstance(exc, CleanroomError):
            exc.backend = exc.backend or self._choice.backend
            if isinstance(exc, ServiceError) and exc.log_tail is None:
                exc.log_tail = self._log_tail() or None
            if isinstance(exc, ServiceError) and "container_id" in self._metadata:
                exc.hint = "; ".join(filter(None, (exc.hint, hint_of_unused(self._run))))
        hide_secrets_in(exc, self._plugin, self._metadata)
        try:
            remove(self._run, self._id, self._metadata, self._plugin)
        except CleanroomError as second:
            exc.add_note(f"and what had been started could not be removed: {second}")

    def _handle(self) -> ServiceHandle:
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
            launched = _ahead.take(self._run, self._plugin, place, spec)
            if launched is None:
                self._note(place.endpoint)
                self._launch(place, spec)
            else:
                self._id, place = launched.id, launched.place
                self._metadata["pid"] = launched.pid
                self._note(place.endpoint)
                span.set("cleanroom.process.ahead", True)
            span.set("process.pid", int(self._metadata["pid"]))
        if spec.setup is None:
            self._wait(self._probe, listens=self._knock(place))
        else:
            setup = partial(spec.setup, place.endpoint)
            self._wait(setup, self._probe, listens=self._knock(place, spec.private_socket))

    def _launch(self, place: _process.Place, spec: ProcessSpec) -> None:
        confirm = _process.launch(self._run, self._id, place, spec)
        try:
            self._plugin.warm_up()
        finally:  # what is under way has to be there before it can be stopped
            self._metadata["pid"] = confirm()

    def _launch_container(self) -> None:
        # Not at the top: a process needs none of it.
        from cleanroom_runtime import _container, _images

        choice = self._choice
        assert choice.engine is not None  # noqa: S101 - a choice of this backend has both
        assert choice.image is not None  # noqa: S101
        with spans.provision_span():
            spec = self._plugin.container(choice.image)
            self._container_port = spec.port
            _images.provide(self._run, self._plugin.name, spec, choice.engine)
        with spans.launch_span():
            self._note(
                _container.launch(self._run, self._id, self._plugin.name, spec, choice.engine)
            )
            self._plugin.warm_up()
        self._wait(self._probe)

    def _attach(self) -> None:
        assert self._choice.url is not None  # noqa: S101 - a choice of this backend has one
        self._run.request("register", id=self._id)
        with spans.provision_span():
            self._metadata |= self._plugin.attach(self._choice.url, self._id)
        self._wait(self._probe)

    def _note(self, endpoint: Endpoint) -> None:
        self._metadata |= endpoint.facts
        self._metadata |= {"host": endpoint.host, "port": str(endpoint.port)}
        self._metadata |= self._plugin.describe(endpoint.host, endpoint.port)

    def _probe(self, timeout: float) -> None:
        self._plugin.probe(self._metadata, timeout)

    def _wait(
        self, *questions: Callable[[float], None], listens: Callable[[], bool] | None = None
    ) -> None:
        """Put one question after the other until it is answered. Time runs from here on.

        Args:
            questions: What to ask.
            listens: What tells when to put the first, if anything does.
        """
        seconds, patient = self._plugin.start_timeout, self._plugin.patient
        deadline = time.monotonic() + seconds
        with spans.wait_ready_span():
            try:
                for question in questions:
                    wait_ready(
                        question, self._check_alive, deadline, seconds, listens, patient=patient
                    )
                    listens = None  # as it does, since it has answered
            except StartTimeoutError as exc:
                exc.hint = "; ".join(filter(None, (self._where_it_listens(exc), exc.hint)))
                hide_secrets_in(exc, self._plugin, self._metadata)  # before the span has it
                raise
            if self._choice.backend == "process":
                self._check_alive()  # else it was a stranger at its port who answered

    def _knock(
        self, place: _process.Place, private_socket: str | None = None
    ) -> Callable[[], bool] | None:
        """What knocks where a process listens first. At a container's port the engine opens."""
        if not self._plugin.probes_port:
            return None
        if private_socket is not None:
            return partial(_process.listens_at, place.workspace.directory / private_socket)
        return partial(_process.listens, place.workspace.port)

    def _where_it_listens(self, exc: StartTimeoutError) -> str:
        """Say where a service listens, if that is not where it was expected."""
        from cleanroom_runtime import _listening

        if self._choice.backend == "process":
            pid, port = int(self._metadata["pid"]), int(self._metadata["port"])
            return _listening.of_process(pid, port)
        engine, port = self._choice.engine, self._container_port
        if engine is None or not port:
            return ""
        exposed = _listening.of_image(self._metadata["image"], port, engine)
        return "; ".join(filter(None, (self._who_listens_inside(exc, engine), exposed)))

    def _who_listens_inside(self, exc: StartTimeoutError, engine: Engine) -> str:
        """Say if nobody does at the port that is asked.

        Only when time is up: not every service bears to be connected to and asked nothing.
        """
        from cleanroom_runtime import _listening
        from cleanroom_runtime._waits import UnansweredError

        if self._plugin.probes_port:
            at, port = self._metadata, self._container_port
            said = _listening.of_container(at, port, engine)
            return _listening.by_knocking(at, port) if said is None else said
        cause = exc.__cause__
        if isinstance(cause, UnansweredError):
            return _listening.of_container(self._metadata, cause.port, engine) or ""
        return ""

    def _check_alive(self) -> None:
        """Raise when the service has ended, or is not wanted any more."""
        if CleanroomEnvironment.given_up():
            raise ServiceError(
                "its start was given up while it was not ready yet",
                hint="another service failed, or the start was interrupted",
            )
        if self._choice.backend == "process":
            code = _process.exit_code(self._run, self._id)
            if code is not None:
                raise ProcessError(
                    f"the server ended while it was starting, {_process.describe_exit(code)}",
                    log_tail=self._log_tail(),
                    hint=f"it was started from {self._metadata['executable']}",
                )
        elif self._choice.engine is not None:
            from cleanroom_runtime import _container

            state = _container.state(
                self._metadata["container_id"], self._choice.engine, timeout=_ENGINE_PATIENCE
            )
            if not state.running:
                killed = " (out of memory)" if state.oom_killed else ""
                raise ContainerError(
                    f"the container ended while it was starting, with exit code "
                    f"{state.exit_code}{killed}",
                    log_tail=self._log_tail(),
                    hint=f"it was started from image {self._metadata['image']}",
                )

    def _log_tail(self) -> str:
        text = log_tail(self._plugin, self._metadata, _LOOKED_AT)
        return "\n".join(counted(text)[-_LOG_LINES:])
