"""Checks of a running service, which leave it as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from cleanroom import HealthStatus, ServiceHandle, SupportsLogs
from cleanroom.testing._elsewhere import (
    another_object,
    asked_in_another_process,
    at_a_silent_address,
)
from cleanroom.testing._left import has_container, listens, processes, traces_of
from cleanroom.testing._recording import refuse_secrets, secrets_of
from cleanroom.testing._service import Service, ask, is_external
from cleanroom.testing._verdict import reject, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

START = "cleanroom.service.start"
HEALTH = "cleanroom.service.health_check"

_ALWAYS = ("backend", "backend_reason", "version", "host", "port", "url")
_OF_BACKEND = {
    "process": ("pid", "executable"),
    "container": ("container_id", "image"),
    "external": (),
}
_OF_DATABASE = ("username", "password")


def is_live(service: Service) -> None:
    """When start returns, the service answers, is healthy, and runs where the handle says."""
    require(
        service.health is HealthStatus.HEALTHY,
        f"right after start() the service is {service.health.name}",
        "let start return once the service answers the question that health_check asks",
    )
    facts, traces = service.handle.metadata, traces_of(service.handle)
    if is_external(service.handle):
        return
    pid = facts.get("pid")
    require(
        pid is None or (traces.pids and traces.pids[0] in processes()),
        f"there is no process {pid}, which the handle says is the service",
        "put the pid of the running service into the metadata",
    )
    require(
        traces.container is None or has_container(traces.engine, traces.container) is not False,
        f"the engine has no container {traces.container}, which the handle says is the service",
        "put the full id of the running container into the metadata",
    )
    require(
        traces.address is not None and listens(*traces.address),
        f"nobody listens at {facts.get('host')}, port {facts.get('port')}, though start() returned",
        "let host and port be the address that clients use, as seen from the tests",
    )


def is_complete(service: Service) -> None:
    """The handle has every metadata key that its backend promises."""
    handle, facts = service.handle, service.handle.metadata
    mend = "complete the metadata of the handle that start returns"
    name = service.plugin.name
    require(handle.id, "the handle has no id", "give each start an id that no other has")
    require(
        handle.service_name == name,
        f"the handle's service_name is {handle.service_name!r}, the plugin's name {name!r}",
        "make the handle with service_name=self.name",
    )
    backend = facts.get("backend", "")
    require(
        backend in _OF_BACKEND,
        f"the handle's backend is {backend!r}",
        f"say which it is: {', '.join(_OF_BACKEND)}",
    )
    database = _OF_DATABASE if "database_name" in facts else ()
    wanted = (*_ALWAYS, *_OF_BACKEND[backend], *database)
    missing = [key for key in wanted if key not in facts]
    require(not missing, f"the handle's metadata lacks {', '.join(missing)}", mend)
    empty = [key for key in wanted if not facts[key] and key not in _OF_DATABASE]
    require(not empty, f"the handle's metadata is empty at {', '.join(empty)}", mend)
    port = facts["port"]
    require(
        port.isdecimal() and 0 < int(port) < 65536,
        f"the handle's port is {port!r}",
        "let it be the number of a TCP port, as text",
    )
    parts = urlsplit(facts["url"])
    require(
        parts.scheme and parts.netloc,
        "the handle's url is no URL of a service",
        "let it be scheme://user:password@host:port/name, as clients take it",
    )
    require(
        handle.id in repr(handle) and name in repr(handle),
        "the repr of the handle does not say which service it is of",
        "return a ServiceHandle, whose repr does",
    )


def keeps_secrets(service: Service) -> None:
    """No password shows in a repr, a log, a span, or what is printed."""
    plugin, handle = service.plugin, service.handle
    texts = {
        "repr(plugin)": repr(plugin),
        "str(plugin)": str(plugin),
        "repr(handle)": repr(handle),
        "str(handle)": str(handle),
        **service.record.texts(),
    }
    if isinstance(plugin, SupportsLogs):
        texts["logs(handle)"] = plugin.logs(handle, 10_000)
    refuse_secrets(secrets_of(plugin, handle), texts)


def has_one_tree_of_spans(service: Service) -> None:
    """A start is one tree of spans, of constant names; success leaves their status unset."""
    from opentelemetry.trace import StatusCode

    name, spans = service.plugin.name, recorded(service.record.spans)
    starts = [span for span in spans if span.name == START and _service_of(span) == name]
    require(
        len(starts) == 1,
        f"one start has {len(starts)} spans of the name {START}",
        "open it with cleanroom.spans.plugin_start_span(self.name), or leave it to the environment",
    )
    refuse_strays(spans, START, HEALTH)
    facts = service.handle.metadata
    varying = [service.handle.id, *(facts.get(key) for key in ("port", "pid", "container_id"))]
    for span in spans:
        require(
            not any(value and value in span.name for value in varying),
            f"the span {span.name!r} has in its name what differs from start to start",
            "name a span for what is done; put ids, ports and addresses into attributes",
        )
        require(
            span.status.status_code is StatusCode.UNSET,
            f"the span {span.name!r} has the status {span.status.status_code.name}, though all "
            "went well",
            "leave the status of a span unset unless there is an error",
        )


def recorded(spans: Sequence[ReadableSpan] | None) -> Sequence[ReadableSpan]:
    """Return the recorded spans; without the means to record any, skip the check."""
    if spans is None:
        pytest.skip(
            "spans are checked with the OpenTelemetry SDK: pip install 'cleanroom-core[testing]'"
        )
    return spans


def refuse_strays(spans: Sequence[ReadableSpan], *roots: str) -> None:
    """Fail where a span is below none of those with the names of `roots`."""
    by_id = {span.context.span_id: span for span in spans if span.context}
    for span in spans:
        above = span
        while above.name not in roots:
            parent = by_id.get(above.parent.span_id) if above.parent else None
            if parent is None:
                reject(
                    f"the span {span.name!r} is in no tree of {' or '.join(roots)}",
                    "open spans with cleanroom.spans, and run threads in "
                    "contextvars.copy_context()",
                )
            above = parent


def _service_of(span: ReadableSpan) -> object:
    return (span.attributes or {}).get("cleanroom.service.name")


def keeps_its_bound(service: Service) -> None:
    """Asking a service that takes connections and never answers ends in time."""
    with at_a_silent_address(service.handle) as silent:
        ask(service.plugin, silent, "a service that takes connections and never answers")


def handle_travels(service: Service) -> None:
    """Another object of the plugin, and another process, can use the handle."""
    plugin, handle = service.plugin, service.handle
    copy = ServiceHandle.from_json(handle.to_json())
    mend = "look a service up by what its handle says, and keep nothing of it in the object"
    require(
        copy == handle,
        "the handle is another one after it was sent as JSON",
        "put text into its metadata, and nothing else",
    )
    status = ask(another_object(plugin), copy, "a service that another object has started")
    require(
        status is HealthStatus.HEALTHY,
        f"another object of the plugin says {status.name} of a service that runs",
        mend,
    )
    seen, returned = asked_in_another_process(plugin, handle)
    require(
        seen == HealthStatus.HEALTHY.value,
        f"the plugin in another process says {seen.upper()} of a service that runs",
        mend,
    )
    status = ask(plugin, returned, "a service whose handle came back from another process")
    require(
        returned == handle and status is HealthStatus.HEALTHY,
        "the handle cannot be used any more once it came back from another process",
        mend,
    )
