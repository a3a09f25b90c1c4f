"""The run's own network: containers in it reach each other, and it goes with the run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import pytest

from cleanroom import ContainerError, ServiceHandle
from cleanroom_runtime._container import kill, launch, log_tail, state
from cleanroom_runtime._container_spec import ContainerSpec
from cleanroom_runtime._engine import Engine
from cleanroom_runtime._network import known_network, network_of
from cleanroom_runtime._run import Run
from cleanroom_runtime._view import seen_from_container
from cleanroom_runtime._warden._containers import OWNER_LABEL, RUN_LABEL
from tests.leftovers import gone_within, until

ECHO = """
import socket, threading

def echo(connection):
    while data := connection.recv(100):
        connection.sendall(data)

with socket.create_server(("0.0.0.0", 7)) as listener:
    while True:
        threading.Thread(target=echo, args=(listener.accept()[0],)).start()
"""
ASK = """
import os, socket, time

with socket.create_connection((os.environ["ECHO_HOST"], int(os.environ["ECHO_PORT"])), 20) as near:
    near.sendall(b"from a container")
    print(near.recv(100).decode(), flush=True)
time.sleep(600)
"""

Begin = Callable[..., ServiceHandle]


@pytest.fixture
def begin(run: Run, engine: Engine, http_image: str) -> Begin:
    """Launch a container that runs a program; returns a handle of it."""

    def begin(program: str, **env: str) -> ServiceHandle:
        service_id = run.new_service_id()
        command = ["-c", program]
        spec = ContainerSpec(http_image, 7, command=command, env=env, further_ports=(9,))
        endpoint = launch(run, service_id, "box", spec, engine)
        address = {"host": endpoint.host, "port": str(endpoint.port)}
        url = f"box://me:you@{endpoint.host}:{endpoint.port}/all"
        facts = {"backend": "container", **address, "url": url, **endpoint.facts}
        return ServiceHandle(service_id, "box", facts)

    return begin


def networks_of(client: docker.DockerClient, run_id: str) -> list[Any]:
    return client.networks.list(filters={"label": f"{RUN_LABEL}={run_id}"})


def test_containers_reach_each_other(
    begin: Begin, run: Run, engine: Engine, docker_engine: docker.DockerClient
) -> None:
    """A container that runs already joins, without harm to who is connected to it."""
    echo = begin(ECHO)
    assert networks_of(docker_engine, run.id) == []
    bindings = docker_engine.containers.get(echo.metadata["container_id"]).ports
    if engine.local:
        assert {each["HostIp"] for port in bindings.values() for each in port or ()} == {
            "127.0.0.1"
        }
    until(lambda: answers(echo))
    with socket.create_connection((echo.host, echo.port), 10) as connection:
        seen = seen_from_container(echo, engine, run)
        connection.sendall(b"still here")
        assert connection.recv(100) == b"still here"
    assert answers(echo)
    assert docker_engine.containers.get(echo.metadata["container_id"]).ports == bindings
    assert (seen.host, seen.port) == (echo.id, 7)
    assert (seen.metadata["host_9"], seen.metadata["port_9"]) == (echo.id, "9")
    assert seen.url == f"box://me:you@{echo.id}:7/all"
    asking = begin(ASK, ECHO_HOST=seen.host, ECHO_PORT=str(seen.port))
    container_id = asking.metadata["container_id"]
    until(lambda: log_tail(container_id, engine, 10) == "from a container\n")
    # One that was launched since is seen as well, as often as one likes.
    assert seen_from_container(asking, engine, run).host == asking.id
    assert seen_from_container(echo, engine, run) == seen
    (network,) = networks_of(docker_engine, run.id)
    network.reload()
    assert len(network.containers) == 2
    run.shut_down()
    gone_within(10, run.id, engine=True)


def answers(echo: ServiceHandle) -> bool:
    """Whether somebody behind the endpoint takes part: a published port alone accepts at once."""
    try:
        with socket.create_connection((echo.host, echo.port), 2) as connection:
            connection.sendall(b"hello")
            return connection.recv(100) == b"hello"
    except OSError:
        return False


def test_one_for_all_workers(run: Run, engine: Engine, docker_engine: docker.DockerClient) -> None:
    """Whoever asks for the run's network first has it made, once."""
    assert known_network(run, engine) is None
    workers = [Run(run.address) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(lambda worker: network_of(worker, engine), workers))
    for worker in workers:
        worker.disconnect()
    (network,) = made
    assert known_network(run, engine) == network
    assert [each.id for each in networks_of(docker_engine, run.id)] == [network.id]


def test_container_that_has_ended(begin: Begin, run: Run, engine: Engine) -> None:
    """Of a service whose container does not run there is no address to give, and that is said."""
    echo = begin(ECHO)
    kill(echo.metadata["container_id"], engine)
    until(lambda: not state(echo.metadata["container_id"], engine).running)
    with pytest.raises(ContainerError, match="container of 'box' does not run any more"):
        seen_from_container(echo, engine, run)


def test_containers_of_others_in_it(
    run: Run, engine: Engine, postgres_image: str, docker_engine: docker.DockerClient
) -> None:
    """A container that somebody else has connected does not keep the network alive."""
    network = docker_engine.networks.get(network_of(run, engine).id)
    other = docker_engine.containers.run(postgres_image, ["sleep", "600"], detach=True)
    try:
        network.connect(other)
        run.shut_down()
        gone_within(10, run.id, engine=True)
        other.reload()
        assert other.status == "running"
    finally:
        other.remove(force=True, v=True)


def test_no_address_left(run: Run, faulty_engine: Any) -> None:
    """An engine that makes no further network is told in its words, with what helps."""
    words = "could not find an available, non-overlapping IPv4 address pool among the defaults"
    faulty_engine.refuse("POST /networks/create", 403, words)
    with pytest.raises(ContainerError, match=words) as caught:
        network_of(run, faulty_engine.engine)
    assert "docker network prune" in str(caught.value.hint)
    assert '"absent": ' in run.address.directory.joinpath("journal").read_text()
    assert known_network(run, faulty_engine.engine) is None


def test_engine_dies_meanwhile(
    run: Run, faulty_engine: Any, http_image: str, docker_engine: docker.DockerClient
) -> None:
    """An engine that hangs up when a container is to join is an error, and nothing is left."""
    network_of(run, faulty_engine.engine)
    faulty_engine.hang_up("POST /networks/.*/connect")
    spec = ContainerSpec(http_image, 7)
    with pytest.raises(ContainerError, match="the engine does not answer"):
        launch(run, run.new_service_id(), "box", spec, faulty_engine.engine)
    labelled = {"label": f"{RUN_LABEL}={run.id}"}
    assert docker_engine.containers.list(all=True, filters=labelled) == []


SCRIPT = """
    import json, os, signal, sys
    from cleanroom import ServiceHandle
    from cleanroom_runtime._container import launch
    from cleanroom_runtime._engine import find_engine
    from cleanroom_runtime._run import Run, RunAddress
    from cleanroom_runtime._container_spec import ContainerSpec
    from cleanroom_runtime._view import seen_from_container

    engine, run_id, image = find_engine(), *sys.argv[1:]
    address = RunAddress.new()
    run = Run(RunAddress(run_id, address.root, address.owner))
    beside = ServiceHandle(f"{run_id}-s1", "db", {"host": "127.0.0.1", "port": "9"})
    print(seen_from_container(beside, engine, run).host, flush=True)
    spec = ContainerSpec(image, 5432, command=["sleep", "600"])
    print(launch(run, run.new_service_id(), "box", spec, engine).port, flush=True)
    signal.pause()
"""


@pytest.fixture
def script(engine: Engine, postgres_image: str) -> Iterator[Any]:
    """Start a process that makes a relay, its network, and a container, and waits."""
    started = []

    def start(**variables: str) -> Any:
        run_id = f"r{os.urandom(4).hex()}"
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SCRIPT), run_id, postgres_image],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
        )
        process.run_id = run_id  # type: ignore[attr-defined]
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the engine runs in a virtual machine")
def test_killed_when_running(script: Any, docker_engine: docker.DockerClient) -> None:
    """After `kill -9`, network, relay and container are gone within 5 seconds."""
    process = script()
    host, port = process.stdout.readline(), process.stdout.readline()
    assert host
    assert port
    (network,) = networks_of(docker_engine, process.run_id)
    assert network.attrs["IPAM"]["Config"][0]["Gateway"] == host.decode().strip()
    process.send_signal(signal.SIGKILL)
    process.wait()
    gone_within(5, process.run_id, engine=True)


def test_killed_meanwhile(script: Any, faulty_engine: Any) -> None:
    """After `kill -9` while the engine makes the network, it is gone within 5 seconds."""
    come = faulty_engine.delay("POST /networks/create", 0.4)
    process = script(DOCKER_HOST=faulty_engine.engine.url)
    assert come.wait(30)
    process.kill()
    process.wait()
    until(lambda: faulty_engine.has_answered("POST /networks/create"))
    gone_within(5, process.run_id, engine=True)


def test_left_behind(docker_engine: docker.DockerClient, engine: Engine) -> None:
    """A network that a killed container of tests has left is removed by the next run."""
    # By its id alone: a run that begins elsewhere at the same time may be the one to remove it.
    nobody = docker_engine.api.create_network(
        f"cleanroom-{os.urandom(4).hex()}", labels={OWNER_LABEL: "0" * 64}
    )["Id"]
    code = (
        "import sys; from cleanroom_runtime._stale import sweep; "
        "from cleanroom_runtime._engine import find_engine; sweep(find_engine())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert nobody not in [each.id for each in docker_engine.networks.list()]
