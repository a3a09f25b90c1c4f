"""How a container sees other services; what is not a container sees them as tests do."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cleanroom import ContainerError, ServiceHandle
from cleanroom_runtime import BasePlugin, _run, _view
from cleanroom_runtime._container_spec import ContainerSpec
from cleanroom_runtime._engine import Engine
from cleanroom_runtime._network import Network, known_network
from cleanroom_runtime._run import Run
from cleanroom_runtime._specs import LocalServer
from cleanroom_runtime._view import _moved, seen_from_container

PORTS = {54321: 5432, 54322: 8025}


class Api(BasePlugin):
    """A plugin that only says where it would run."""

    plugin_type = "api"

    def probe(self, endpoint: Mapping[str, str], timeout: float) -> None: ...

    def describe(self, host: str, port: int) -> Mapping[str, str]:
        return {}

    def container(self, image: str) -> ContainerSpec:
        return ContainerSpec(image, 80)

    def local_servers(self) -> list[LocalServer]:
        return [LocalServer(Path(sys.executable), "3", "a test")]


def handle(host: str = "127.0.0.1", **more: str) -> ServiceHandle:
    address = {"host": host, "port": "54321", "url": f"db://me:you@{host}:54321/all"}
    return ServiceHandle("r0-s1", "db", {"backend": "process", **address, **more})


@pytest.fixture
def joined(run: Run) -> Iterator[Run]:
    """A run of this test alone, the one that this process takes part in."""
    before = _run.joined_run()
    _run._current = run
    yield run
    _run.leave_run(before)


@pytest.mark.parametrize(
    ("host", "text", "moved"),
    [
        ("127.0.0.1", "db://u:p@127.0.0.1:54321/a?b=c", "db://u:p@there:5432/a?b=c"),
        ("127.0.0.1", "http://127.0.0.1:54321", "http://there:5432"),
        ("127.0.0.1", "127.0.0.1:54322", "there:8025"),
        ("127.0.0.1", "jdbc:db://127.0.0.1:54321/a", "jdbc:db://there:5432/a"),
        ("127.0.0.1", "a://127.0.0.1:54321,127.0.0.1:54322/", "a://there:5432,there:8025/"),
        ("127.0.0.1", "a://127.0.0.1/b", "a://there:5432/b"),
        ("127.0.0.1", "a://127.0.0.1", "a://there:5432"),
        ("localhost", "a://u@LOCALHOST?x=localhost", "a://u@there:5432?x=localhost"),
        ("::1", "a://[::1]:54321/b", "a://there:5432/b"),
        ("127.0.0.1", "a://127.0.0.1:5432/b", "a://127.0.0.1:5432/b"),
        ("127.0.0.1", "a://127.0.0.1:543210/b", "a://127.0.0.1:543210/b"),
        ("127.0.0.1", "a://1127.0.0.1:54321/b", "a://1127.0.0.1:54321/b"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "/run/127.0.0.1/log", "/run/127.0.0.1/log"),
    ],
)
def test_texts(host: str, text: str, moved: str) -> None:
    """In texts, the service's own addresses lead elsewhere, and nothing else changes."""
    metadata = {"host": host, "port": "54321", "text": text}
    assert _moved(metadata, "there", PORTS) == {"host": "there", "port": "5432", "text": moved}


def test_further_ports() -> None:
    """Host and port of each further port lead elsewhere; the elsewhere may be an IPv6 address."""
    metadata = {
        "host": "127.0.0.1", "port": "54321", "host_8025": "127.0.0.1", "port_8025": "54322",
        "url": "db://127.0.0.1:54321", "pid": "54321", "port_note": "none",
    }  # fmt: skip
    assert _moved(metadata, "fd00::2", PORTS) == {
        "host": "fd00::2", "port": "5432", "host_8025": "fd00::2", "port_8025": "8025",
        "url": "db://[fd00::2]:5432", "pid": "54321", "port_note": "none",
    }  # fmt: skip


@pytest.mark.parametrize("host", ["db.example", "192.0.2.7", "2001:db8::7"])
def test_elsewhere(run: Run, engine: Engine, host: str) -> None:
    """What is on another machine is seen as tests see it, and no network is made for it."""
    assert seen_from_container(handle(host), engine, run) == handle(host)
    assert known_network(run, engine) is None


def test_without_an_address(run: Run, engine: Engine) -> None:
    """A service without an address, of a plugin written by hand, is seen as it is."""
    plain = ServiceHandle("1", "box", {"url": "box://1"})
    assert seen_from_container(plain, engine, run) is plain


def test_engine_elsewhere(run: Run) -> None:
    """A container on another machine cannot reach a process of this one, and that is said."""
    engine = Engine("tcp://engine.example:2375", "DOCKER_HOST")
    with pytest.raises(ContainerError) as caught:
        seen_from_container(handle(), engine, run)
    assert caught.value.message == (
        "a container cannot reach service 'db' (backend process): it is reached on this machine "
        "only, and the container runs on the engine at engine.example"
    )
    assert str(caught.value.hint).startswith("run 'db' in a container as well")
    assert "you" not in str(caught.value)


def test_unix_socket(run: Run, engine: Engine) -> None:
    """Nor can it reach a server by a unix socket."""
    with pytest.raises(ContainerError, match="on this machine only, by a unix socket"):
        seen_from_container(handle("/var/run/postgresql"), engine, run)


def test_engine_gone(run: Run) -> None:
    """An engine that is gone since it was found is named."""
    gone = Engine("unix:///nowhere/docker.sock", "DOCKER_HOST")
    with pytest.raises(ContainerError, match="the engine does not answer: no such socket"):
        seen_from_container(handle(), gone, run)


def foreign(run: Run, engine: Engine, gateway: str = "203.0.113.1") -> Engine:
    """An engine whose networks are none of this machine's."""
    network = Network("0", "cleanroom-none", gateway, "203.0.113.0/24")
    run.once(f"network/{engine.url}", lambda: json.dumps(asdict(network)))
    return engine


@pytest.mark.skipif(sys.platform != "linux", reason="the engine runs in a virtual machine")
@pytest.mark.parametrize("gateway", ["203.0.113.1", ""])
def test_networks_that_are_not_this_machines(run: Run, engine: Engine, gateway: str) -> None:
    """With a rootless engine the same, for its networks have no address of this machine."""
    with pytest.raises(ContainerError, match="the engine's networks are none of this machine's"):
        seen_from_container(handle(), foreign(run, engine, gateway), run)


def test_virtual_machine(run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine in a virtual machine has a name by which its containers reach this machine."""
    told = 200, b'{"OperatingSystem": "Docker Desktop"}'
    monkeypatch.setattr(_view, "ask_engine", lambda *_: told)
    seen = seen_from_container(handle(), foreign(run, engine), run)
    assert seen.url == "db://me:you@host.docker.internal:54321/all"


def test_view_of_a_process(joined: Run, engine: Engine) -> None:
    """What runs as a process, or not at all, sees what tests see."""
    assert Api("api", backend="process").view_of(handle()) == handle()
    assert Api("api", backend="external").view_of(handle()) == handle()
    assert not joined.alive()


def test_view_of_a_container_fails(joined: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error names the service that cannot reach the other."""
    choice: Any = Api("api", backend="process").choose()
    elsewhere = choice._replace(backend="container", engine=Engine("tcp://x.example:1", "a test"))
    monkeypatch.setattr(Api, "choose", lambda _: elsewhere)
    with pytest.raises(ContainerError, match="cannot reach service 'db'") as caught:
        Api("api").view_of(handle())
    assert caught.value.service == "api"
