"""What the tests of the plugin share: grounds to run it on, and what looks for leftovers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cleanroom import ServiceHandle
from cleanroom_plugin_postgres import PostgresPlugin
from cleanroom_runtime._run import Run, current_run
from tests.grounds import GROUNDS, Ground, Server, find_ground, processes


@pytest.fixture(params=GROUNDS)
def ground(request: pytest.FixtureRequest) -> Ground:
    """Each way to run PostgreSQL in turn."""
    return find_ground(request.param, request)


@pytest.fixture(params=[name for name in GROUNDS if name != "container"])
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
def start() -> Iterator[Callable[[PostgresPlugin], ServiceHandle]]:
    """Starts a plugin for this test alone."""
    started: list[tuple[PostgresPlugin, ServiceHandle]] = []

    def start(plugin: PostgresPlugin) -> ServiceHandle:
        handle = plugin.start()
        started.append((plugin, handle))
        return handle

    yield start
    for plugin, handle in started:
        plugin.stop(handle)


@pytest.fixture
def left_over(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[[], list[str]]:
    """Lists what is left of the services that this test has tried to start."""
    ids: list[str] = []
    new_id = Run.new_service_id

    def note(run: Run) -> str:
        ids.append(new_id(run))
        return ids[-1]

    monkeypatch.setattr(Run, "new_service_id", note)

    def left_over() -> list[str]:
        assert ids, "nothing was started"
        found = [line for line in processes() if any(one in line for one in ids)]
        found += [str(path) for one in ids for path in _directories(one)]
        if "docker_engine" in request.fixturenames:
            client = request.getfixturevalue("docker_engine")
            for one in ids:
                label = f"org.cleanroom.service={one}"
                found += client.containers.list(all=True, filters={"label": label})
        return found

    return left_over


def _directories(service_id: str) -> Iterator[Path]:
    """Where a service has written; in its run's own directory the run's id is left out."""
    own = current_run().address.directory
    short = service_id.partition("-")[2]
    for path in own.iterdir() if own.is_dir() else ():
        if path.name.startswith(short):
            yield path
    for folder in (own.parent, own.parent.parent, Path("/dev/shm")):
        for path in folder.iterdir() if folder.is_dir() else ():
            if service_id in path.name:
                yield path


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a path short enough for unix sockets in it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What was recorded by spans, with an SDK configured for this test alone."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return exporter


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> str:
    """No container engine answers. Returns where there is none."""
    url = "unix:///nobody/listens/here.sock"
    monkeypatch.setenv("DOCKER_HOST", url)
    return url


# ------------------------------------------------------------------ runs within a test


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what inner runs cache: pytester gives each a home of its own."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, caches: Path) -> Path:
    """The folder of an inner run, which no setting of the outer one reaches."""
    for name in os.environ:
        if name.startswith("CLEANROOM_") and not name.startswith("CLEANROOM_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLEANROOM_CACHE_DIR", str(caches))
    return pytester.path


@pytest.fixture
def run(
    pytester: pytest.Pytester, inner: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., pytest.RunResult]:
    """Run pytest in a process of its own, warnings being errors and connections not left open."""
    monkeypatch.setenv("PYTHONWARNINGS", "default::ResourceWarning")

    def run(*arguments: str, order: str = "no:randomly", tidy: bool = True) -> pytest.RunResult:
        if tidy:
            arguments = ("-W", "error", *arguments)
        result = pytester.runpytest_subprocess("-p", order, "-p", "no:cacheprovider", *arguments)
        if tidy:
            result.stderr.no_fnmatch_line("*was deleted while still open*")
        return result

    return run


@pytest.fixture(params=["process", pytest.param("container", marks=pytest.mark.slow)])
def backend(request: pytest.FixtureRequest, inner: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The backend on which an inner run has its server."""
    if request.param == "container":
        image = request.getfixturevalue("postgres_image")
        text = f"[services.postgres]\nplugin = 'postgres'\nimage = '{image}'\n"
        (inner / "cleanroom.toml").write_text(text)
    monkeypatch.setenv("CLEANROOM_BACKEND", request.param)
    return str(request.param)
