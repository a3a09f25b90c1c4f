"""What the tests of the plugin share: grounds to run it on, and servers of somebody else's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cleanroom import ServiceHandle
from cleanroom_plugin_redis import RedisPlugin
from tests.redis_grounds import GROUNDS, Foreign, Ground, Server, Start, find_ground


@pytest.fixture(params=GROUNDS)
def ground(request: pytest.FixtureRequest) -> Ground:
    """Each way to run Redis in turn."""
    return find_ground(request.param, request)


@pytest.fixture(params=["embedded", "installed"])
def process_ground(request: pytest.FixtureRequest) -> Ground:
    """Each kind of server that runs as a process in turn."""
    return find_ground(request.param, request)


@pytest.fixture(scope="session")
def _servers() -> Iterator[dict[str, Server]]:
    servers: dict[str, Server] = {}
    yield servers
    for server in servers.values():
        server.plugin.stop(server.handle)


@pytest.fixture
def server(ground: Ground, _servers: dict[str, Server]) -> Server:
    """A running server on this ground, for tests that leave it as it is."""
    if ground.name not in _servers:
        plugin = ground.plugin()
        _servers[ground.name] = Server(plugin, plugin.start())
    return _servers[ground.name]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a plugin for this test alone."""
    started: list[tuple[RedisPlugin, ServiceHandle]] = []

    def start(plugin: RedisPlugin) -> ServiceHandle:
        handle = plugin.start()
        started.append((plugin, handle))
        return handle

    yield start
    for plugin, handle in started:
        plugin.stop(handle)


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What was recorded by spans, with an SDK configured for this test alone."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return exporter


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No container engine answers."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nobody/listens/here.sock")


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Foreign]:
    """A server of somebody else's that has 16 databases."""
    foreign = Foreign(tmp_path)
    foreign.launch()
    try:
        foreign.until_it_answers()
        yield foreign
    finally:
        foreign.end()
