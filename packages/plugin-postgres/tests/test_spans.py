"""The spans of a start, in the order and with the attributes that the documentation names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from cleanroom import CleanroomEnvironment, CleanroomError
from cleanroom_plugin_postgres import PostgresPlugin
from tests.grounds import Ground


def tree(spans: tuple[ReadableSpan, ...]) -> list[str]:
    """The names of spans, each with those above it, in the order in which they began."""
    by_id = {span.context.span_id: span for span in spans if span.context}

    def path(span: ReadableSpan) -> str:
        above = by_id[span.parent.span_id] if span.parent else None
        return f"{path(above)} > {span.name}" if above else span.name

    return [path(span) for span in sorted(spans, key=lambda span: span.start_time or 0)]


def attributes(spans: tuple[ReadableSpan, ...], name: str) -> Mapping[str, object]:
    (span,) = [span for span in spans if span.name == name]
    return dict(span.attributes or {})


def test_the_tree_of_a_start(ground: Ground, exporter: InMemorySpanExporter) -> None:
    """One tree per start: environment, service, and what starting the service consists of."""
    with CleanroomEnvironment() as environment:
        environment.register(ground.plugin().with_credentials("someone", "hidden-password"))
        environment.start_all()
        spans = exporter.get_finished_spans()
        handle = environment["testdb"]
    top = "cleanroom.environment.start > cleanroom.service.start"
    assert tree(spans) == [
        "cleanroom.environment.start",
        top,
        f"{top} > provision",
        f"{top} > launch",
        f"{top} > launch > cleanroom.{ground.backend}.start",
        f"{top} > wait_ready",
    ]
    assert attributes(spans, "cleanroom.service.start") == {
        "cleanroom.service.name": "testdb",
        "cleanroom.service.backend": ground.backend,
        "server.address": handle.host,
        "server.port": handle.port,
        "db.system.name": "postgresql",
        "db.namespace": "testdb",
    }
    facts = handle.metadata
    if ground.backend == "container":
        assert attributes(spans, "cleanroom.container.start") == {
            "container.id": facts["container_id"],
            "container.image.name": ground.image,
        }
    else:
        assert attributes(spans, "cleanroom.process.start") == {
            "process.executable.path": facts["executable"],
            "process.pid": int(facts["pid"]),
        }
    assert {span.status.status_code for span in spans} == {StatusCode.UNSET}


def test_asking_and_stopping_have_spans(ground: Ground, exporter: InMemorySpanExporter) -> None:
    """A health check says what it found; a stop is a span of its own."""
    plugin = ground.plugin()
    handle = plugin.start()
    plugin.health_check(handle)
    exporter.clear()
    plugin.stop(handle)
    plugin.health_check(handle)
    spans = exporter.get_finished_spans()
    assert tree(spans) == ["cleanroom.service.stop", "cleanroom.service.health_check"]
    asked = attributes(spans, "cleanroom.service.health_check")
    assert asked["cleanroom.service.health"] == "unhealthy"


def test_an_error_is_recorded_once(ground: Ground, exporter: InMemorySpanExporter) -> None:
    """An error stands on the span where it happened and on no other, without secrets."""
    plugin = (
        ground.plugin()
        .with_credentials("someone", "hidden-password")
        .with_setting("work_mem", "plenty")
    )
    with pytest.raises(CleanroomError) as caught:
        plugin.start()
    spans = exporter.get_finished_spans()
    marked = [span for span in spans if span.status.status_code is not StatusCode.UNSET]
    assert [span.name for span in marked] == ["wait_ready"]
    (span,) = marked
    assert span.attributes is not None
    assert span.attributes["error.type"] == type(caught.value).__name__
    assert span.status.description == caught.value.message
    assert [event.name for each in spans for event in each.events] == ["exception"]
    assert "hidden-password" not in "".join(span.to_json() for span in spans)


def test_a_choice_that_cannot_be_made(no_engine: str, exporter: InMemorySpanExporter) -> None:
    """Where nothing was launched, the error is the service's own."""
    with pytest.raises(CleanroomError):
        PostgresPlugin("db", "postgres:9").start()
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.status.status_code) == ("cleanroom.service.start", StatusCode.ERROR)


def test_no_password_is_in_any_span(ground: Ground, exporter: InMemorySpanExporter) -> None:
    """Neither start, isolation, health check nor stop exports a password."""
    plugin = ground.plugin().with_credentials("someone", "hidden-password")
    plugin = plugin.with_env("API_TOKEN", "hidden-token")
    handle = plugin.start()
    plugin.health_check(handle)
    with plugin.isolate(handle):
        pass
    plugin.stop(handle)
    exported = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "cleanroom.service.stop" in exported
    assert "hidden" not in exported


WITHOUT_SDK = """
import sys
from cleanroom import CleanroomEnvironment
from cleanroom_plugin_postgres import PostgresPlugin

with CleanroomEnvironment() as environment:
    environment.register(PostgresPlugin("db", sys.argv[1], backend="process"))
    assert environment["db"].url
heavy = ("opentelemetry", "docker", "testcontainers", "http.client", "requests")
print([name for name in heavy if name in sys.modules])
print([name for name in sys.modules if name in ("cleanroom_runtime._container", "secrets")])
"""


def test_nothing_is_imported_without_an_sdk(process_ground: Ground) -> None:
    """With no telemetry set up, and a process, neither OpenTelemetry nor docker is imported."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SDK, process_ground.image],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "[]"
