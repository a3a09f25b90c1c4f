"""What a container's service writes and nobody will miss: in memory, where that hides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest

from cleanroom import ContainerError
from cleanroom_runtime import _scratch
from cleanroom_runtime._container import launch
from cleanroom_runtime._container_spec import ContainerSpec
from cleanroom_runtime._engine import Engine
from cleanroom_runtime._run import Run

FOLDER = "/var/lib/postgresql/data"
DATA = "$PGDATA/PG_VERSION"

Start = Callable[..., Any]


@pytest.fixture
def start(
    run: Run, engine: Engine, postgres_image: str, docker_engine: docker.DockerClient
) -> Iterator[Start]:
    """Launch a container of the PostgreSQL image, which does nothing. Returns docker's view."""

    def start(engine: Engine = engine, **spec: Any) -> Any:
        settings = {"image": postgres_image, "port": 5432, "command": ["sleep", "600"], **spec}
        endpoint = launch(run, run.new_service_id(), "box", ContainerSpec(**settings), engine)
        return docker_engine.containers.get(endpoint.facts["container_id"])

    yield start
    run.shut_down()


@pytest.mark.parametrize("data", [f"{FOLDER}/PG_VERSION", DATA])
def test_data_is_in_memory(start: Start, data: str) -> None:
    """A folder, by its path or the image's variable, is in memory, and no volume is made for it."""
    container = start(data=data)
    assert in_memory(container) == [FOLDER]
    assert container.attrs["Mounts"] == []
    kind, mode = output(container, f"stat -f -c %T {FOLDER}; stat -c %a {FOLDER}")
    assert (kind, mode) == ("tmpfs", "1777")


def test_the_environment_says_where_the_data_is(start: Start) -> None:
    """A variable that the image has is another one's, where the specification sets it."""
    container = start(data=DATA, env={"PGDATA": "/data/of/box"}, tmpfs={"/scratch": ""})
    assert sorted(in_memory(container)) == ["/data/of/box", "/scratch"]


def test_other_memory_is_left_alone(start: Start) -> None:
    """Without data there is in memory what was asked for, and nothing else."""
    assert in_memory(start(tmpfs={"/scratch": ""})) == ["/scratch"]


def test_what_the_image_brings_is_not_hidden(start: Start) -> None:
    """A folder in which the image has that file stays as it is."""
    container = start(data="/usr/share/postgresql/15/postgres.bki", tmpfs={"/scratch": ""})
    assert in_memory(container) == ["/scratch"]
    assert output(container, "ls /usr/share/postgresql") == ["15"]


@pytest.mark.parametrize(
    "spec",
    [
        {"memory": 2 * 2**30},
        {"user": "postgres"},
        {"user": "1234:0"},
        {"tmpfs": {FOLDER: "size=9m"}},
        {"tmpfs": {f"{FOLDER}/pg_wal": "size=9m"}},
        {"files": {f"{FOLDER}/PG_VERSION": b"15\n"}},
        {"data": "$NO_SUCH_VARIABLE/PG_VERSION"},
        {"data": "$PGDATA"},
        {"data": "relative/PG_VERSION"},
        {"data": "/PG_VERSION"},
        {"data": "/var/lib/../data/PG_VERSION"},
    ],
)
def test_data_stays_where_it_is(start: Start, spec: dict[str, Any]) -> None:
    """Data is not moved where that costs memory that is limited, or takes something away.

    That is a folder that the image's own user could not write to, and what was asked for there.
    """
    container = start(**{"data": DATA, **spec})
    assert container.attrs["HostConfig"].get("Tmpfs", {}) == spec.get("tmpfs", {})


def test_an_image_with_a_user(start: Start, derived: Callable[..., str]) -> None:
    """An image that does not run as root keeps its folders."""
    container = start(image=derived(changes=["USER postgres"]), data=DATA)
    assert in_memory(container) == []
    assert output(container, "id -un") == ["postgres"]


def test_engine_without_room(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the engine has little memory, or this process, the data stays on disk."""
    with monkeypatch.context() as patch:
        patch.setattr(_scratch, "_MEMORY_WANTED", 2**60)
        assert in_memory(start(data=DATA)) == []
    monkeypatch.setattr(_scratch, "memory_left", lambda: 2**29)
    assert in_memory(start(data=DATA)) == []


def test_an_engine_that_does_not_show_files(start: Start, faulty_engine: Any) -> None:
    """Where the engine does not tell whether the file is there, its folder stays as it is."""
    faulty_engine.refuse("HEAD .*/archive", 501, "not implemented")
    assert in_memory(start(engine=faulty_engine.engine, data=DATA)) == []


def test_an_engine_that_fails(
    start: Start, faulty_engine: Any, run: Run, docker_engine: Any
) -> None:
    """An engine that fails when it is asked is an error, and no container is left."""
    faulty_engine.refuse("GET /info", 500, "database is locked")
    with pytest.raises(ContainerError, match="database is locked"):
        start(engine=faulty_engine.engine, data=DATA)
    label = {"label": f"org.cleanroom.run={run.id}"}
    assert docker_engine.containers.list(all=True, filters=label) == []


@pytest.fixture
def derived(
    docker_engine: docker.DockerClient, postgres_image: str, run: Run
) -> Iterator[Callable[..., str]]:
    """Make an image from the PostgreSQL one that differs by instructions of a Dockerfile."""
    made: list[str] = []

    def derived(changes: list[str]) -> str:
        container = docker_engine.containers.create(postgres_image)
        try:
            image = container.commit("cleanroom-derived", f"{run.id}-{len(made)}", changes=changes)
        finally:
            container.remove(v=True)
        made.append(str(image.id))
        return str(image.tags[0])

    yield derived
    run.shut_down()
    for image in made:
        docker_engine.images.remove(image, force=True)


def in_memory(container: Any) -> list[str]:
    return list(container.attrs["HostConfig"].get("Tmpfs") or {})


def output(container: Any, command: str) -> list[str]:
    code, written = container.exec_run(["sh", "-c", command])
    assert code == 0, written
    return str(written.decode()).splitlines()
