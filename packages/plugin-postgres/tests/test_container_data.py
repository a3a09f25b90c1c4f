"""Where a PostgreSQL in a container keeps its data."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import docker
import psycopg
import pytest

from cleanroom import ServiceHandle
from cleanroom_plugin_postgres import PostgresPlugin

Start = Callable[[PostgresPlugin], ServiceHandle]

BAKED = {
    "PGDATA": "/baked",
    "POSTGRES_USER": "clerk",
    "POSTGRES_PASSWORD": "till",
    "POSTGRES_DB": "shop",
    "POSTGRES_INITDB_ARGS": "--data-checksums",
}


def test_data_is_in_memory(postgres_image: str, start: Start, docker_engine: Any) -> None:
    """What is thrown away is not written to a disk, and no volume is made for it."""
    handle = start(PostgresPlugin("testdb", postgres_image, backend="container"))
    container = docker_engine.containers.get(handle.require("container_id"))
    assert container.attrs["Mounts"] == []
    [folder] = query(handle, "SHOW data_directory")
    assert container.exec_run(["stat", "-f", "-c", "%T", folder]).output == b"tmpfs\n"


def test_paused_data_is_still_there(postgres_image: str, start: Start, docker_engine: Any) -> None:
    """What was written before a pause is there after it."""
    handle = start(PostgresPlugin("testdb", postgres_image, backend="container"))
    with psycopg.connect(handle.url) as connection:
        connection.execute("CREATE TABLE written AS SELECT 1 AS n")
    container = docker_engine.containers.get(handle.require("container_id"))
    container.pause()
    container.unpause()
    assert query(handle, "SELECT n FROM written") == [1]


def test_an_image_with_data_of_its_own(baked_image: str, start: Start) -> None:
    """An image that brings a data directory is served with what is in it, and its own settings."""
    plugin = PostgresPlugin("testdb", baked_image, "shop", backend="container")
    handle = start(plugin.with_credentials("clerk", "till"))
    assert query(handle, "SELECT name FROM items") == ["screw"]
    assert query(handle, "SHOW data_checksums") == ["on"]


@pytest.fixture
def baked_image(postgres_image: str, docker_engine: docker.DockerClient) -> Iterator[str]:
    """An image with a database in it, in a folder that is no volume."""
    container: Any = docker_engine.containers.run(
        postgres_image, detach=True, environment={**BAKED, "PGPASSWORD": BAKED["POSTGRES_PASSWORD"]}
    )
    make = "CREATE TABLE items AS SELECT 'screw'::text AS name"
    try:
        psql = ["psql", "-h", "127.0.0.1", "-U", "clerk", "-d", "shop", "-c", make]
        deadline = time.monotonic() + 60
        while container.exec_run(psql).exit_code != 0:
            assert time.monotonic() < deadline, container.logs()
            time.sleep(0.1)
        container.stop()
        image = container.commit("cleanroom-baked", uuid.uuid4().hex)
    finally:
        container.remove(v=True, force=True)
    yield image.tags[0]
    docker_engine.images.remove(image.id, force=True)


def query(handle: ServiceHandle, statement: str) -> list[Any]:
    with psycopg.connect(handle.url) as connection:
        return [value for (value,) in connection.execute(statement.encode()).fetchall()]
