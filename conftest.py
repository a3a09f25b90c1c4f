"""What tests of all packages share: the surroundings, the container engine and the images."""

import gc
import signal
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import requests  # noqa: F401 - pytester forgets what a test imports first, and it bears that once only

from tests.availability import cannot_run
from tests.images import HTTP, MEMCACHED, NGINX, POSTGRES, REDIS, SHOP, Image

if TYPE_CHECKING:
    from docker import DockerClient


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in what a shell runs in the background; the sessions that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def like_a_users_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide CI from what a test runs: pytest, for one, prints other lines when it sees it."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)


@pytest.fixture(scope="session")
def docker_engine() -> "Iterator[DockerClient]":
    """A client of the container engine; without one the test is skipped, and fails under CI."""
    client = connect()
    if isinstance(client, str):
        cannot_run(f"no container engine answers: {client}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def postgres_image(docker_engine: "DockerClient") -> str:
    """The PostgreSQL image to test with, present on the engine."""
    return present(docker_engine, POSTGRES)


@pytest.fixture(scope="session")
def redis_image(docker_engine: "DockerClient") -> str:
    """The Redis image to test with, present on the engine."""
    return present(docker_engine, REDIS)


@pytest.fixture(scope="session")
def memcached_image(docker_engine: "DockerClient") -> str:
    """The Memcached image to test with, present on the engine."""
    return present(docker_engine, MEMCACHED)


@pytest.fixture(scope="session")
def nginx_image(docker_engine: "DockerClient") -> str:
    """The nginx image to test with, present on the engine."""
    return present(docker_engine, NGINX)


@pytest.fixture(scope="session")
def http_image(docker_engine: "DockerClient") -> str:
    """The image of an HTTP server on port 8080 to test with, present on the engine."""
    return present(docker_engine, HTTP)


@pytest.fixture(scope="session")
def shop_image(docker_engine: "DockerClient") -> str:
    """The image of examples/shop, present on the engine."""
    return present(docker_engine, SHOP)


def connect() -> "DockerClient | str":
    """Return a client, or the reason for which there is none."""
    import docker
    from docker.errors import DockerException

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            return docker.from_env()
        except DockerException as error:
            reason = str(error)
        # The failed client leaves its socket open, which would fail another test later.
        gc.collect()
    return reason


def present(client: "DockerClient", image: Image) -> str:
    """Return the name of the image, pulled if it is not a stand-in and not there yet."""
    from docker.errors import APIError, ImageNotFound

    try:
        client.images.get(image.name)
    except ImageNotFound:
        if image.is_stand_in:
            cannot_run(f"image {image.name} is not built; build it with: hatch run images")
        try:
            client.images.pull(image.name)
        except APIError as error:
            cannot_run(f"image {image.name} ({image.variable}) cannot be pulled: {error}")
    return image.name
