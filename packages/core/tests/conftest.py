from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import cleanroom

SOURCES = Path(cleanroom.__file__).parent

PLUGIN = """
    from cleanroom import HealthStatus, ServiceHandle

    class Plugin:
        def __init__(self, name="box", size=1, backend="auto", env=None):
            self.name, self.size, self.backend, self.env = name, size, backend, env or {}

        def start(self):
            return ServiceHandle("1", self.name, {"url": f"box://{self.name}", "port": "1"})

        def stop(self, handle):
            pass

        def health_check(self, handle):
            return HealthStatus.HEALTHY
"""
"""Source of a module with a plugin that needs no base class."""


class Site:
    """A folder of installed distributions, as `pip install --target` would leave it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(
        self,
        distribution: str,
        *,
        version: str = "1.0",
        plugins: Mapping[str, str] | None = None,
        hooks: Mapping[str, str] | None = None,
        modules: Mapping[str, str] | None = None,
    ) -> None:
        info = self.path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        groups = {"cleanroom.plugins": plugins or {}, "cleanroom.hooks": hooks or {}}
        lines = ["[console_scripts]", "tool = tool:main"]
        for group, points in groups.items():
            if points:
                lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        for name, source in (modules or {}).items():
            (self.path / f"{name}.py").write_text(textwrap.dedent(source))

    def run(self, code: str, **variables: str) -> str:
        """Run code in a fresh interpreter that has these distributions, and return its output."""
        path = os.pathsep.join([str(self.path), str(SOURCES.parent)])
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
            env={**os.environ, "PYTHONPATH": path, **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A folder to install distributions into; used in fresh interpreters."""
    path = tmp_path / "site"
    path.mkdir()
    return Site(path)


@pytest.fixture
def here(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A folder to install distributions into before anything is looked up in this process."""
    from cleanroom import discovery

    known = set(sys.modules)
    monkeypatch.syspath_prepend(str(site.path))
    discovery.refresh()
    yield site
    discovery.refresh()
    for name in set(sys.modules) - known:
        if (site.path / f"{name}.py").exists():
            del sys.modules[name]


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What was recorded by spans, with an SDK configured for this test alone."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return exporter


@pytest.fixture
def tree(exporter: InMemorySpanExporter) -> Callable[[], dict[str, str | None]]:
    """A function that returns each finished span's label with the label of its parent."""

    def label(span: object) -> str:
        service = span.attributes.get("cleanroom.service.name")  # type: ignore[attr-defined]
        return f"{span.name} {service}" if service else span.name  # type: ignore[attr-defined]

    def collect() -> dict[str, str | None]:
        spans = exporter.get_finished_spans()
        labels = {span.context.span_id: label(span) for span in spans}
        return {label(s): labels[s.parent.span_id] if s.parent else None for s in spans}

    return collect
