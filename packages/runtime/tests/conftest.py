"""What the tests of the runtime share: a run each, and an engine that fails when told to."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import http.server
import itertools
import json
import re
import shutil
import socketserver
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cleanroom_runtime._engine import Engine, find_engine
from cleanroom_runtime._run import Run, RunAddress
from cleanroom_runtime._warden import _engine_api


@pytest.fixture
def run() -> Iterator[Run]:
    """A run of this test alone."""
    run = Run(RunAddress.new())
    yield run
    run.shut_down()


@pytest.fixture
def engine(docker_engine: docker.DockerClient) -> Engine:
    """The container engine of this machine."""
    found = find_engine()
    assert isinstance(found, Engine), found
    return found


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What was recorded by spans, with an SDK configured for this test alone."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return exporter


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a path short enough for unix sockets in it."""
    folder = tempfile.mkdtemp(prefix="c-", dir="/tmp")
    yield Path(folder)
    shutil.rmtree(folder)


@pytest.fixture
def faulty_engine(engine: Engine, short_folder: Path, run: Run) -> Iterator[FaultyEngine]:
    """The engine of this machine behind a relay, which fails when it is told to."""
    faulty = FaultyEngine(engine, short_folder / "engine.sock")
    with faulty.serving():
        yield faulty
        faulty.mend()
        end_completely(run)


@pytest.fixture
def relay(engine: Engine, run: Run) -> Iterator[Callable[..., FaultyEngine]]:
    """Put a relay in front of the engine, at an address and with encryption of its own."""
    with contextlib.ExitStack() as stack:

        def relay(address: tuple[str, int], tls: ssl.SSLContext | None = None) -> FaultyEngine:
            faulty = FaultyEngine(engine, address, tls)
            stack.enter_context(faulty.serving())
            return faulty

        yield relay
        end_completely(run)


def end_completely(run: Run) -> None:
    """End a run and wait until its warden, which holds a lock while it lives, has ended too."""
    run.shut_down()
    with contextlib.suppress(FileNotFoundError), open(run.address.directory / "lock") as lock:
        deadline = time.monotonic() + 20
        while True:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                assert time.monotonic() < deadline, "the warden did not come to an end"
                time.sleep(0.02)


class FaultyEngine:
    """Passes requests on to a real engine, unless a fault was put in their way.

    Args:
        real: The engine that answers.
        address: Path of a unix socket to listen at, or host and port.
        tls: Encrypts the connections.
    """

    def __init__(
        self, real: Engine, address: Path | tuple[str, int], tls: ssl.SSLContext | None = None
    ) -> None:
        self._answered: list[str] = []
        self._real = real
        self._address = address
        self._tls = tls
        self._faults: list[tuple[str, Callable[[], tuple[int, str] | None]]] = []

    @property
    def engine(self) -> Engine:
        """How to reach it, unless by TLS."""
        if isinstance(self._address, Path):
            return Engine(f"unix://{self._address}", "a relay")
        return Engine(f"tcp://{self._address[0]}:{self.port}", "a relay")

    def refuse(self, request: str, status: int, message: str, *, times: int | None = None) -> None:
        """Refuse requests that match the pattern (`POST /containers/.*/start`), so many times."""
        left = (
            itertools.repeat((status, message))
            if times is None
            else iter([(status, message)] * times)
        )
        self._faults.append((request, lambda: next(left, None)))

    def hang_up(self, request: str) -> None:
        """Close the connection instead of answering requests that match."""
        self.refuse(request, 0, "")

    def delay(self, request: str, seconds: float) -> threading.Event:
        """Pass requests on late, whether or not the client still waits.

        Returns what is set when the first of them has come.
        """
        come = threading.Event()

        def wait() -> None:
            come.set()
            time.sleep(seconds)

        self._faults.append((request, wait))
        return come

    def hold(self, request: str, wait: Callable[[], object], *, times: int | None = None) -> None:
        """Pass requests that match on only when this returns, so many times."""
        left = itertools.repeat(wait) if times is None else iter([wait] * times)

        def hold() -> None:
            next(left, lambda: None)()

        self._faults.append((request, hold))

    def mend(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    def has_answered(self, request: str) -> bool:
        """Whether the real engine has answered a request that matches."""
        return any(re.match(request, each) for each in self._answered)

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Serve while the context is open."""
        handler = type("Handler", (_Relay,), {"relay": self})
        if isinstance(self._address, Path):
            server = _UnixServer(str(self._address), handler)
        else:
            server = _TcpServer(self._address, handler)
            self.port = server.server_address[1]
        if self._tls is not None:
            server.socket = self._tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def fault(self, request: str) -> tuple[int, str] | None:
        for pattern, act in self._faults:
            if re.match(pattern, request) and (answer := act()) is not None:
                return answer
        return None

    def forward(
        self, request: http.server.BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, str, bytes]:
        connection = _engine_api._Connection(self._real.warden_record(), 60)
        with contextlib.closing(connection):
            kind = request.headers.get("Content-Type", "")
            connection.request(request.command, request.path, body, {"Content-Type": kind})
            response = connection.getresponse()
            answer = response.status, response.headers.get("Content-Type", ""), response.read()
            self._answered.append(f"{request.command} {_unversioned(request.path)}")
            return answer


class _Relay(http.server.BaseHTTPRequestHandler):
    relay: FaultyEngine
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):  # the client is gone
            super().handle_one_request()

    def pass_on(self) -> None:
        self.close_connection = True
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = f"{self.command} {_unversioned(self.path)}"
        fault = self.relay.fault(request)
        if fault == (0, ""):
            return
        if fault is None:
            status, kind, content = self.relay.forward(self, body)
        else:
            status, kind = fault[0], "application/json"
            content = json.dumps({"message": fault[1]}).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = pass_on  # noqa: N815

    def address_string(self) -> str:
        return "client"

    def log_message(self, *arguments: object) -> None:
        pass


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    request_queue_size = 64


class _TcpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    request_queue_size = 64


def _unversioned(path: str) -> str:
    version, _, rest = path.removeprefix("/").partition("/")
    return f"/{rest}" if version.startswith("v1.") else path
