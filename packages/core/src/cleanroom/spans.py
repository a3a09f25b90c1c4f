"""Spans around what takes time: starting, stopping and asking services.

With no OpenTelemetry configured in the process, a span costs nothing and imports nothing: a
tracer provider can only have been set by code that imported `opentelemetry.trace`, or be named by
`OTEL_PYTHON_TRACER_PROVIDER`. Attribute names follow the semantic conventions 1.44 where these
have one; our own start with `cleanroom.`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from cleanroom._secrets import hide_secrets, scrub

if TYPE_CHECKING:
    from opentelemetry.trace import Span as OtelSpan

__all__ = [
    "Span",
    "container_start_span",
    "environment_start_span",
    "environment_stop_span",
    "health_check_span",
    "launch_span",
    "plugin_start_span",
    "plugin_stop_span",
    "process_start_span",
    "provision_span",
    "wait_ready_span",
]


class Span:
    """What the code inside a span may do with it: add facts, secrets removed."""

    def __init__(self, otel: OtelSpan | None = None) -> None:
        self._otel = otel

    def set(self, key: str, value: str | int | float | bool) -> None:
        """Set an attribute. A value whose key names a secret is hidden."""
        if self._otel is not None:
            shown = hide_secrets(key, value) if isinstance(value, str) else value
            self._otel.set_attribute(key, shown)


def environment_start_span() -> AbstractContextManager[Span]:
    """Span over the start of several services: `cleanroom.environment.start`."""
    return _span("cleanroom.environment.start")


def environment_stop_span() -> AbstractContextManager[Span]:
    """Span over the stop of several services: `cleanroom.environment.stop`."""
    return _span("cleanroom.environment.stop")


def plugin_start_span(name: str) -> AbstractContextManager[Span]:
    """Span over the start of the service `name`: `cleanroom.service.start`."""
    return _service_span("cleanroom.service.start", name)


def plugin_stop_span(name: str) -> AbstractContextManager[Span]:
    """Span over the stop of the service `name`: `cleanroom.service.stop`."""
    return _service_span("cleanroom.service.stop", name)


def health_check_span(name: str) -> AbstractContextManager[Span]:
    """Span over one health check of the service `name`: `cleanroom.service.health_check`."""
    return _service_span("cleanroom.service.health_check", name)


def provision_span() -> AbstractContextManager[Span]:
    """Span over what precedes the launch, such as a data directory or an image: `provision`."""
    return _span("provision")


def launch_span() -> AbstractContextManager[Span]:
    """Span over launching the container or process: `launch`."""
    return _span("launch")


def wait_ready_span() -> AbstractContextManager[Span]:
    """Span from the launch to the first right answer: `wait_ready`."""
    return _span("wait_ready")


def container_start_span(image: str) -> AbstractContextManager[Span]:
    """Span over the engine's part of starting a container: `cleanroom.container.start`."""
    return _span("cleanroom.container.start", {"container.image.name": image})


def process_start_span(executable: str) -> AbstractContextManager[Span]:
    """Span over starting a server process: `cleanroom.process.start`."""
    return _span("cleanroom.process.start", {"process.executable.path": executable})


_open_over_service: ContextVar[tuple[str, str, Span] | None] = ContextVar("open", default=None)


@contextmanager
def _service_span(name: str, service: str) -> Generator[Span, None, None]:
    """Open a span, or go on in the one that the caller opened over the same thing already."""
    current = _open_over_service.get()
    if current is not None and current[:2] == (name, service):
        yield current[2]
        return
    with _span(name, {"cleanroom.service.name": service}) as span:
        token = _open_over_service.set((name, service, span))
        try:
            yield span
        finally:
            _open_over_service.reset(token)


@contextmanager
def _span(name: str, attributes: dict[str, str] | None = None) -> Generator[Span, None, None]:
    if "opentelemetry.trace" not in sys.modules and not os.getenv("OTEL_PYTHON_TRACER_PROVIDER"):
        yield Span()
        return
    from opentelemetry import trace

    tracer = trace.get_tracer("cleanroom")
    with tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as otel:
        try:
            yield Span(otel)
        except Exception as exc:
            _record_once(otel, exc)
            raise


def _record_once(otel: OtelSpan, exc: Exception) -> None:
    """Record the error on the innermost span it passes, and on no other."""
    from opentelemetry.trace import Status, StatusCode

    if _recorded(exc):
        return
    kind = type(exc).__qualname__
    text = scrub(getattr(exc, "message", None) or str(exc))
    otel.set_attribute("error.type", kind)
    otel.set_status(Status(StatusCode.ERROR, text))
    otel.add_event("exception", {"exception.type": kind, "exception.message": text})
    exc.__dict__["_cleanroom_recorded"] = True


def _recorded(exc: BaseException | None, seen: frozenset[int] = frozenset()) -> bool:
    """Whether an error was recorded, as it is or as the one from which it was raised."""
    if exc is None or id(exc) in seen:
        return False
    cause = exc.__cause__ or (exc.__context__ if exc.__suppress_context__ else None)
    return "_cleanroom_recorded" in exc.__dict__ or _recorded(cause, seen | {id(exc)})
