"""Relays from an address of a network to a service on this machine's loopback."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cleanroom import ProcessError
from cleanroom_runtime._relay import hint_of_unused, relayed, stop_relays
from cleanroom_runtime._run import Run
from tests.leftovers import processes_of, until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has all addresses of 127.0.0.0/8"
)
HERE = "127.0.0.2"
ALL = "127.0.0.0/8"


@pytest.fixture
def service() -> Iterator[tuple[str, int]]:
    """A service that says what it has heard once it has heard all: first how much, then what."""

    def answer(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as heard:
            content = heard.read()
            connection.sendall(b"%d\n" % len(content) + content)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener, answer), daemon=True).start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)


def serve(listener: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def ask(host: str, port: int, content: bytes, source: str = "127.0.0.1") -> bytes:
    with socket.create_connection((host, port), 10, (source, 0)) as connection:
        threading.Thread(target=tell, args=(connection, content), daemon=True).start()
        with connection.makefile("rb") as answer:
            return answer.read()


def tell(connection: socket.socket, content: bytes) -> None:
    connection.sendall(content)
    connection.shutdown(socket.SHUT_WR)


def test_passes_on_all_of_both_directions(run: Run, service: Any) -> None:
    """Whatever is sent arrives, and the end of one direction leaves the other open."""
    port = relayed(run, f"{run.id}-s1", service, HERE, ALL)
    content = os.urandom(3_000_000)
    assert ask(HERE, port, content) == b"3000000\n" + content
    assert ask(HERE, port, b"") == b"0\n"


def test_nobody_has_come(run: Run, service: Any) -> None:
    """A relay that nobody has come to is named, in case a firewall is why."""
    assert hint_of_unused(run) == ""
    ports = [relayed(run, f"{run.id}-s{n}", service, HERE, ALL) for n in (1, 2)]
    both = f"{HERE}:{ports[0]}, {HERE}:{ports[1]}"
    assert hint_of_unused(run).startswith(f"no container has connected to {both} so far")
    assert ask(HERE, ports[0], b"") == b"0\n"
    assert f"connected to {HERE}:{ports[1]} so far" in hint_of_unused(run)
    stop_relays(run, f"{run.id}-s2")
    assert hint_of_unused(run) == ""


def test_many_at_once(run: Run, service: Any) -> None:
    """Connections do not wait for each other."""
    port = relayed(run, f"{run.id}-s1", service, HERE, ALL)
    idle = [socket.create_connection((HERE, port), 10) for _ in range(50)]
    assert ask(HERE, port, b"hello") == b"5\nhello"
    for connection in idle:
        connection.close()


def test_only_there_and_only_from_there(run: Run, service: Any) -> None:
    """It listens on the one address, and closes connections from outside the network unheard."""
    port = relayed(run, f"{run.id}-s1", service, HERE, "127.0.0.8/29")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 10)
    with socket.create_connection((HERE, port), 10, ("127.0.0.7", 0)) as stranger:
        assert stranger.recv(1) == b""
    assert ask(HERE, port, b"hello", source="127.0.0.9") == b"5\nhello"


def test_one_for_all(run: Run, service: Any) -> None:
    """All who ask for the same relay are given the one; another service has its own."""
    first = relayed(run, f"{run.id}-s1", service, HERE, ALL)
    other = Run(run.address)
    assert relayed(other, f"{run.id}-s1", service, HERE, ALL) == first
    assert relayed(other, f"{run.id}-s2", service, HERE, ALL) != first
    other.disconnect()


def test_service_that_is_away(run: Run) -> None:
    """Where the service does not answer the connection ends, and works again when it does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = relayed(run, f"{run.id}-s1", listener.getsockname(), HERE, ALL)
        with socket.create_connection((HERE, port), 10) as connection:
            assert connection.recv(1) == b""
        listener.listen()
        with socket.create_connection((HERE, port), 10) as connection:
            near, _ = listener.accept()
            near.sendall(b"hello")
            assert connection.recv(5) == b"hello"
            # What dies without a word of goodbye takes the connection with it.
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            near.close()
            assert connection.recv(1) == b""


def test_ends_with_its_service(run: Run, service: Any) -> None:
    """Stopping the relays of a service ends them, and leaves those of others."""
    mine, other = (relayed(run, f"{run.id}-s{n}", service, HERE, ALL) for n in (1, 2))
    stop_relays(run, f"{run.id}-s1")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HERE, mine), 10)
    assert len([path for path in run.address.directory.iterdir() if path.is_dir()]) == 1
    assert ask(HERE, other, b"hello") == b"5\nhello"


def test_ends_with_the_run(run: Run, service: Any) -> None:
    """It ends with its run, and is no child of the process that asked for it."""
    port = relayed(run, f"{run.id}-s1", service, HERE, ALL)
    assert len(processes_of(run.id)) >= 2
    run.shut_down()
    until(lambda: processes_of(run.id) == [])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HERE, port), 10)


@pytest.mark.parametrize("address", ["", "0.0.0.0", "here"])
def test_no_single_address(run: Run, service: Any, address: str) -> None:
    """Without the one address to listen on it ends, says why, and leaves nothing."""
    with pytest.raises(ProcessError, match=r"the relay that leads from .* ended") as caught:
        relayed(run, f"{run.id}-s1", service, address, ALL)
    assert "ValueError: " in str(caught.value.log_tail)
    assert [path for path in run.address.directory.iterdir() if path.is_dir()] == []


def test_cannot_be_started(run: Run, service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that cannot be executed is an error that says what it was for."""
    run.request("register")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ProcessError, match=r"relay that .* could not be started: No such file"):
        relayed(run, f"{run.id}-s1", service, HERE, ALL)
