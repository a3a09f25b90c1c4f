from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from cleanroom import ServiceError, spans

if TYPE_CHECKING:
    from conftest import Site

Tree = Callable[[], dict[str, str | None]]


def test_nothing_is_imported_while_nobody_uses_opentelemetry(site: Site) -> None:
    """A span in a process without opentelemetry imports none of it, and takes attributes."""
    code = """
        import sys
        from cleanroom import spans
        with spans.plugin_start_span("db") as span, spans.launch_span():
            span.set("server.port", 5432)
        print([name for name in sys.modules if name.startswith("opentelemetry")])
    """
    assert site.run(code, OTEL_PYTHON_TRACER_PROVIDER="") == "[]"


def test_what_a_client_imports_of_opentelemetry_is_not_enough(site: Site) -> None:
    """A library that only carries context or metrics sets no tracer provider."""
    code = """
        import sys
        import opentelemetry.context
        from cleanroom import spans
        with spans.plugin_start_span("db"):
            pass
        print("opentelemetry.trace" in sys.modules)
    """
    assert site.run(code, OTEL_PYTHON_TRACER_PROVIDER="") == "False"


def test_a_start_is_one_tree(tree: Tree) -> None:
    """Spans nest: environment, service, then provision, launch and wait_ready."""
    with spans.environment_start_span(), spans.plugin_start_span("db"):
        with spans.provision_span():
            pass
        with spans.launch_span(), spans.process_start_span("/usr/bin/postgres"):
            pass
        with spans.wait_ready_span():
            pass
    service = "cleanroom.service.start db"
    assert tree() == {
        "cleanroom.environment.start": None,
        service: "cleanroom.environment.start",
        "provision": service,
        "launch": service,
        "cleanroom.process.start": "launch",
        "wait_ready": service,
    }


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (spans.environment_stop_span, "cleanroom.environment.stop"),
        (lambda: spans.plugin_stop_span("db"), "cleanroom.service.stop"),
        (lambda: spans.health_check_span("db"), "cleanroom.service.health_check"),
        (lambda: spans.container_start_span("redis:8"), "cleanroom.container.start"),
    ],
)
def test_names_do_not_hold_what_varies(
    exporter: InMemorySpanExporter, make: Callable[[], object], name: str
) -> None:
    """The name of a span says the kind of thing only; success leaves its status unset."""
    with make():  # type: ignore[attr-defined]
        pass
    (span,) = exporter.get_finished_spans()
    assert span.name == name
    assert span.status.status_code is StatusCode.UNSET


def test_same_span_inside_itself_is_one(exporter: InMemorySpanExporter) -> None:
    """Where environment and plugin both open the span of a start, there is one, with all facts."""
    with spans.plugin_start_span("db") as outer, spans.plugin_start_span("db") as inner:
        outer.set("cleanroom.a", 1)
        inner.set("cleanroom.b", 2)
    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes or {}) == {
        "cleanroom.service.name": "db",
        "cleanroom.a": 1,
        "cleanroom.b": 2,
    }


def test_spans_of_other_services_and_kinds_are_their_own(tree: Tree) -> None:
    """Another service's start, or a health check, inside a start has a span of its own."""
    api, db = spans.plugin_start_span("api"), spans.plugin_start_span("db")
    with api, db, spans.health_check_span("db"):
        pass
    with spans.plugin_start_span("api"):
        pass
    assert tree() == {
        "cleanroom.service.start api": None,
        "cleanroom.service.start db": "cleanroom.service.start api",
        "cleanroom.service.health_check db": "cleanroom.service.start db",
    }


def test_error_is_recorded_once_where_it_happened(exporter: InMemorySpanExporter) -> None:
    """An error is an event of the innermost span alone, and passes on unchanged."""
    error = ServiceError("no", service="db")
    with pytest.raises(ServiceError) as caught:  # noqa: SIM117
        with spans.plugin_start_span("db"), spans.launch_span():
            raise error
    assert caught.value is error
    launch, start = exporter.get_finished_spans()
    assert [event.name for event in launch.events] == ["exception"]
    assert launch.status.status_code is StatusCode.ERROR
    assert (launch.attributes or {})["error.type"] == "ServiceError"
    assert start.events == ()
    assert start.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("chained", [True, False], ids=["from the cause", "from None"])
def test_translated_error_is_recorded_where_its_cause_was(
    exporter: InMemorySpanExporter, chained: bool
) -> None:
    """An error that is raised from a recorded one is that error still: it is not recorded again."""

    def translate(error: OSError) -> None:
        raise ServiceError("no", service="db") from (error if chained else None)

    with pytest.raises(ServiceError), spans.plugin_start_span("db"):
        fail_in_a_launch(translate)
    launch, start = exporter.get_finished_spans()
    assert (launch.attributes or {})["error.type"] == "OSError"
    assert [event.name for event in launch.events] == ["exception"]
    assert start.events == ()
    assert start.status.status_code is StatusCode.UNSET


def fail_in_a_launch(handle: Callable[[OSError], None]) -> None:
    try:
        with spans.launch_span():
            raise OSError("no space left")
    except OSError as error:
        handle(error)


def test_error_that_names_itself_as_cause_is_recorded(exporter: InMemorySpanExporter) -> None:
    """A chain of causes that has no end is not followed for ever."""
    error = OSError("no space left")
    with pytest.raises(OSError, match="no space left"), spans.launch_span():
        raise error from error
    (launch,) = exporter.get_finished_spans()
    assert (launch.attributes or {})["error.type"] == "OSError"


def test_further_error_is_recorded_too(exporter: InMemorySpanExporter) -> None:
    """An error that comes up while another one is dealt with is one of its own."""

    def clean_up(error: OSError) -> None:
        raise ServiceError("what was left could not be removed")

    with pytest.raises(ServiceError), spans.plugin_start_span("db"):
        fail_in_a_launch(clean_up)
    launch, start = exporter.get_finished_spans()
    assert (launch.attributes or {})["error.type"] == "OSError"
    assert (start.attributes or {})["error.type"] == "ServiceError"


def test_no_secret_reaches_a_span(exporter: InMemorySpanExporter) -> None:
    """Neither an attribute nor an error carries a password into a span."""
    with spans.plugin_start_span("db") as span:
        span.set("url.full", "redis://:s3cret@localhost")
        span.set("password", "s3cret")
    with pytest.raises(RuntimeError), spans.plugin_start_span("db"):
        raise RuntimeError("redis://:s3cret@localhost said no")
    texts = [span.to_json() for span in exporter.get_finished_spans()]
    assert len(texts) == 2
    assert "s3cret" not in "".join(texts)


def test_context_follows_into_a_thread(tree: Tree) -> None:
    """A span opened in a thread that runs in a copy of the context is a child."""
    with spans.environment_start_span():
        context = copy_context()
        thread = Thread(target=lambda: context.run(open_and_close))
        thread.start()
        thread.join()
    assert tree()["cleanroom.service.start db"] == "cleanroom.environment.start"


def open_and_close() -> None:
    with spans.plugin_start_span("db"):
        pass
