"""How a run's containers end: all at once, and without keeping who need not wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest

from cleanroom_runtime import _stale
from cleanroom_runtime._container import launch
from cleanroom_runtime._container_spec import ContainerSpec
from cleanroom_runtime._engine import Engine
from cleanroom_runtime._network import network_of
from cleanroom_runtime._run import Run
from cleanroom_runtime._warden._containers import OWNER_LABEL, RUN_LABEL

Start = Callable[[], str]


@pytest.fixture
def start(run: Run, postgres_image: str, faulty_engine: Any) -> Start:
    """Launch a container that does nothing, on an engine that can be told to dawdle."""

    def start() -> str:
        spec = ContainerSpec(postgres_image, 5432, command=["sleep", "600"])
        endpoint = launch(run, run.new_service_id(), "box", spec, faulty_engine.engine)
        return endpoint.facts["container_id"]

    return start


@pytest.fixture
def held(faulty_engine: Any) -> Iterator[threading.Event]:
    """Has the engine begin to remove containers only when this is set."""
    go = threading.Event()
    faulty_engine.hold("DELETE /containers", go.wait)
    yield go
    go.set()


def test_all_at_once(start: Start, run: Run, faulty_engine: Any, docker_engine: Any) -> None:
    """The engine is told to remove one container before it has removed another."""
    for _ in range(3):
        start()
    together = threading.Barrier(3, timeout=20)
    faulty_engine.hold("DELETE /containers", together.wait, times=3)
    run.shut_down()
    assert not together.broken
    assert of_run(docker_engine, run) == []


def test_who_is_in_haste(
    start: Start, run: Run, held: threading.Event, docker_engine: docker.DockerClient
) -> None:
    """Who is in haste goes on once the engine was told, and the container goes as well."""
    container_id = start()
    run.begin_to_shut_down(hasty=True)()
    assert of_run(docker_engine, run) == [container_id]
    held.set()
    assert eventually(lambda: of_run(docker_engine, run) == [])


def test_haste_has_to_wait_for_what_no_engine_does(
    start: Start, run: Run, engine: Engine, docker_engine: docker.DockerClient
) -> None:
    """A network can be removed only after its containers, which nobody but the run will do."""
    start()
    network_of(run, engine)
    run.begin_to_shut_down(hasty=True)()
    assert of_run(docker_engine, run) == []
    label = {"label": f"{RUN_LABEL}={run.id}"}
    assert docker_engine.networks.list(filters=label) == []


def test_haste_has_to_wait_where_the_run_ends_with_its_container(
    start: Start, run: Run, docker_engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was started from within a container is gone before that container may end."""
    owner = start()
    monkeypatch.setattr(_stale, "owner_labels", lambda _: {OWNER_LABEL: owner})
    start()
    run.begin_to_shut_down(hasty=True)()
    assert of_run(docker_engine, run) == []


def of_run(client: docker.DockerClient, run: Run) -> list[str]:
    label = {"label": f"{RUN_LABEL}={run.id}"}
    return [str(each["Id"]) for each in client.api.containers(all=True, filters=label)]


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return met
