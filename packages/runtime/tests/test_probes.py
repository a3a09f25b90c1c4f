"""The questions that plugins can ask of their services."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cleanroom import ServiceError, ServiceHandle
from cleanroom_runtime import ContainerPlugin, probes


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ready" else 503)
        self.end_headers()
        self.wfile.write(b"said by the server")

    def log_message(self, *_: object) -> None:
        """Nothing is written."""


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """A server on this machine, as a process is known."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield {
            "backend": "process",
            "host": "127.0.0.1",
            "port": str(listening.server_address[1]),
        }
        listening.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def contained(http_image: str) -> Iterator[ServiceHandle]:
    """A server in a container, of whose ports one is listened on."""
    plugin = ContainerPlugin("api", http_image, [8080, 9090]).with_wait(http="/health")
    handle = plugin.start()
    yield handle
    plugin.stop(handle)


@pytest.fixture
def nobody(server: dict[str, str]) -> dict[str, str]:
    """Where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return {**server, "port": str(taken.getsockname()[1])}


def test_a_port_is_listened_on(
    server: dict[str, str], nobody: dict[str, str], contained: ServiceHandle
) -> None:
    """A question by TCP is answered where somebody listens, in a container: inside it."""
    probes.ask_tcp(server, 2)
    with pytest.raises(ConnectionRefusedError):
        probes.ask_tcp(nobody, 2)
    probes.ask_tcp(contained.metadata, 2)
    silent = {**contained.metadata, "port": contained.metadata["port_9090"]}
    with pytest.raises(ServiceError, match="nothing listens on its port inside the container"):
        probes.ask_tcp(silent, 2)


def test_a_path_answers(server: dict[str, str], nobody: dict[str, str]) -> None:
    """A question by HTTP is answered by a status below 400, or by the one that is expected."""
    probes.ask_http(server, "/ready", 2)
    probes.ask_http(server, "/other", 2, status=503)
    with pytest.raises(ServiceError, match=r"status 503, and one below 400 .* 'said by the server"):
        probes.ask_http(server, "/other", 2)
    with pytest.raises(ServiceError, match="status 200, and 204 is expected"):
        probes.ask_http(server, "/ready", 2, status=204)
    with pytest.raises(ServiceError, match=r"no answer in HTTP .ConnectionRefusedError"):
        probes.ask_http(nobody, "/ready", 2)


def test_a_line_is_in_the_log(
    server: dict[str, str], contained: ServiceHandle, tmp_path: Path
) -> None:
    """A question to the log is answered by a line of a process or of a container."""
    log = tmp_path / "log"
    log.write_text("starting\nready in 3 ms\n")
    probes.ask_log({**server, "log": str(log)}, r"^ready in \d+ ms$")
    with pytest.raises(ServiceError, match="none of the 2 lines of its log has a match of 'done'"):
        probes.ask_log({**server, "log": str(log)}, "done")
    probes.ask_log(contained.metadata, "listening on port 8080")
    with pytest.raises(ServiceError, match="lines of its log"):
        probes.ask_log(contained.metadata, "no such line")
    probes.ask_log({**server, "backend": "external"}, "of which there is none to see")


def test_a_command_succeeds_on_this_machine(server: dict[str, str]) -> None:
    """A command is told where a process listens; how it failed is told without its arguments."""
    connect = "import socket; socket.create_connection(('{host}', {port})).close()"
    probes.ask_command(server, [sys.executable, "-c", connect], 20, port=1)
    fail = [sys.executable, "-c", "print('it is loading'); exit(3)", "secret-argument"]
    with pytest.raises(ServiceError, match="exit code 3: 'it is loading'") as caught:
        probes.ask_command(server, fail, 20, port=1)
    assert "secret-argument" not in str(caught.value)
    with pytest.raises(ServiceError, match=r"did not end within 0\.1 s"):
        probes.ask_command(server, ["sleep", "30"], 0.1, port=1)
    with pytest.raises(ServiceError, match="'no-such-program' cannot be run: No such file"):
        probes.ask_command(server, ["no-such-program"], 1, port=1)


def test_a_command_succeeds_in_the_container(contained: ServiceHandle) -> None:
    """In a container the command is told the port inside."""
    argv = ["bash", "-c", "exec 3<>/dev/tcp/{host}/{port}"]
    probes.ask_command(contained.metadata, argv, 10, port=8080)
    with pytest.raises(ServiceError, match=r"command 'bash' ended with exit code 1: .*refused"):
        probes.ask_command(contained.metadata, argv, 10, port=9090)
