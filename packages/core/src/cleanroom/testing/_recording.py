"""What a plugin lets others see while it works: its logs, its output, its spans."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, unquote, urlsplit

import pytest

from cleanroom import ServiceHandle, ServicePlugin
from cleanroom._secrets import is_secret_key
from cleanroom.testing._verdict import reject

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

_SHORTEST_SECRET = 6
"""Fewer characters than these occur anywhere by chance."""


@dataclass
class Recording:
    """What was seen while a block of code ran; complete once it has ended.

    Attributes:
        logs: Each log record as text, of all levels, tracebacks included.
        output: What was written to `sys.stdout` and `sys.stderr`.
        spans: The spans that have ended, the first to end first; `None` without the SDK.
    """

    logs: list[str] = field(default_factory=list[str])
    output: str = ""
    spans: list[ReadableSpan] | None = None

    def texts(self) -> dict[str, str]:
        """Return all of it as text, by what it is."""
        return {
            "a log record": "\n".join(self.logs),
            "what is printed": self.output,
            "a span": "\n".join(map(_text_of, self.spans or ())),
        }


@contextlib.contextmanager
def recording() -> Iterator[Recording]:
    """Record what the block lets others see. What it prints is printed all the same, later."""
    record = Recording()
    handler = _Collector(record.logs)
    root = logging.getLogger()
    level, out, err = root.level, io.StringIO(), io.StringIO()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with (
            _collected_spans(record),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            yield record
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        record.output = out.getvalue() + err.getvalue()
        sys.stdout.write(out.getvalue())
        sys.stderr.write(err.getvalue())


class _Collector(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.NOTSET)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


@contextlib.contextmanager
def _collected_spans(record: Recording) -> Iterator[None]:
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    except ImportError:
        yield
        return
    exporter = InMemorySpanExporter()
    processor: SpanProcessor = SimpleSpanProcessor(exporter)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    with pytest.MonkeyPatch.context() as patch:  # one cannot be replaced that was set
        patch.setattr(trace, "get_tracer_provider", lambda: provider)
        try:
            yield
        finally:
            record.spans = list(exporter.get_finished_spans())


def _text_of(span: ReadableSpan) -> str:
    facts = [dict(span.attributes or {}), *(dict(event.attributes or {}) for event in span.events)]
    return f"{span.name} {span.status.description} {facts}"


def secrets_of(plugin: ServicePlugin, handle: ServiceHandle | None = None) -> set[str]:
    """Return the secrets of a service: what plugin and handle hold, and must be seen nowhere else.

    Args:
        plugin: The plugin. What it was given as a password, token or the like is in attributes
            that are named so, or in mappings under keys that are.
        handle: The service's, if there is one.
    """
    facts = handle.metadata if handle is not None else {}
    found = set(_named_secret(facts))
    password = urlsplit(facts.get("url", "")).password
    found |= {unquote(password)} if password else set()
    shown = [plugin.name, *(value for value in facts.values() if value not in found)]
    found |= set(_named_secret(getattr(plugin, "__dict__", {})))
    for secret in found:
        if len(secret) < _SHORTEST_SECRET or any(
            secret in text for text in shown if "://" not in text
        ):
            reject(
                "the plugin of the fixture `plugin` has a password that is also a part of other "
                f"metadata, or shorter than {_SHORTEST_SECRET} characters, so that nobody can "
                "tell whether it shows",
                "give it a long password that occurs nowhere else",
            )
    return found


def _named_secret(values: Mapping[str, object]) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _named_secret(cast("Mapping[str, object]", value))
        elif isinstance(value, str) and value and is_secret_key(key):
            yield value


def refuse_secrets(secrets: set[str], texts: dict[str, str]) -> None:
    """Fail where a secret shows, whole or as it is written in a URL.

    Args:
        secrets: See `secrets_of`.
        texts: What people may see, by what it is.
    """
    written = {spelling for secret in secrets for spelling in (secret, quote(secret, safe=""))}
    leaks = [what for what, text in texts.items() if any(one in text for one in written)]
    if leaks:
        reject(
            f"a password shows in {' and in '.join(leaks)}",
            "leave it out, or show *** in its place (as the repr of a handle does)",
        )
