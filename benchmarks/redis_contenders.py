"""Redis: Cleanroom with each of its backends, what else there is, and the floor."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks._contenders import REDIS_IMAGE, Contender, missing_image

_OURS = """\
import pytest


@pytest.fixture
def client(redis_db):
    return redis_db.client()
"""

_PYTEST_REDIS = """\
import pytest
from cleanroom_valkey_server import PROGRAM
from pytest_redis import factories

redis_proc = factories.redis_proc(executable=str(PROGRAM))
redisdb = factories.redisdb("redis_proc")


@pytest.fixture
def client(redisdb):
    return redisdb
"""

_TESTCONTAINERS = """\
import os

import pytest
from testcontainers.community.redis import RedisContainer


@pytest.fixture(scope="session")
def shared_client():
    image = os.environ["BENCH_REDIS_IMAGE"]
    # As the official image does by itself; one that is Debian's Redis refuses all others.
    command = "redis-server --protected-mode no"
    with RedisContainer(image).with_command(command) as container:
        with container.get_client() as client:
            yield client


@pytest.fixture
def client(shared_client):
    yield shared_client
    shared_client.flushdb()
"""

_NOT_ISOLATED = """\
import pytest
from cleanroom_plugin_redis import RedisPlugin
from redis import Redis


@pytest.fixture(scope="session")
def client():
    plugin = RedisPlugin(backend="process")
    handle = plugin.start()
    with Redis.from_url(handle.url) as client:
        yield client
    plugin.stop(handle)
"""

BARE = Contender(name="bare pytest, imports redis", environment="bare", kind="nothing")

PROCESS = Contender(
    name="cleanroom, process",
    environment="plugins",
    conftest=lambda tables: _OURS,
    variables={"CLEANROOM_BACKEND": "process"},
)

NOT_AHEAD = replace(
    PROCESS,
    name="cleanroom, process, nothing launched ahead",
    variables={**PROCESS.variables, "CLEANROOM_AHEAD": "0"},
)

NOT_ISOLATED = Contender(
    name="one client for all, nothing isolated",
    environment="plugins",
    conftest=lambda tables: _NOT_ISOLATED,
    kind="increments another",
)

CONTAINER = Contender(
    name="cleanroom, container",
    environment="plugins",
    conftest=lambda tables: _OURS,
    settings=f'\n[tool.cleanroom.services.cache]\nplugin = "redis"\nimage = "{REDIS_IMAGE}"\n',
    variables={"CLEANROOM_BACKEND": "container", "BENCH_REDIS_IMAGE": REDIS_IMAGE},
    missing=partial(missing_image, REDIS_IMAGE),
)

OURS = {"process": PROCESS, "container": CONTAINER}

PYTEST_REDIS = Contender(
    name="pytest-redis", environment="pytest-redis", conftest=lambda tables: _PYTEST_REDIS
)

TESTCONTAINERS = Contender(
    name="testcontainers-python, without Ryuk",
    environment="testcontainers",
    conftest=lambda tables: _TESTCONTAINERS,
    variables={"TESTCONTAINERS_RYUK_DISABLED": "true", "BENCH_REDIS_IMAGE": REDIS_IMAGE},
    missing=partial(missing_image, REDIS_IMAGE),
)
