"""The plugin does the same on every backend: each test runs on every ground there is."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from cleanroom import HealthStatus, ServiceError, ServiceHandle
from cleanroom_plugin_postgres import PostgresPlugin
from tests.grounds import Ground, Server

if TYPE_CHECKING:
    from docker import DockerClient

Start = Callable[[PostgresPlugin], ServiceHandle]

BOUND = 2.0
"""Seconds within which a health check answers."""


# ----------------------------------------------------------------- start, ask, stop


def test_the_reference_example(ground: Ground, left_over: Callable[[], list[str]]) -> None:
    """The example of the documentation starts, is healthy, and leaves nothing when stopped."""
    plugin = (
        PostgresPlugin("testdb", ground.image, "testdb", backend=ground.backend)
        .with_credentials("testuser", "testpass")
        .with_env("POSTGRES_INITDB_ARGS", "--auth-host=scram-sha-256")
    )
    handle = plugin.start()
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    assert handle.service_name == "testdb"
    assert handle.require("database_name") == "testdb"
    assert handle.require("username") == "testuser"
    assert handle.require("password") == "testpass"
    assert handle.url == f"postgresql://testuser:testpass@{handle.host}:{handle.port}/testdb"
    assert left_over()
    plugin.stop(handle)
    assert left_over() == []
    plugin.stop(handle)
    assert plugin.health_check(handle) is HealthStatus.UNHEALTHY


def test_metadata_says_what_runs_and_why(ground: Ground, server: Server) -> None:
    """The handle says which backend was chosen and why, what runs there, and its version."""
    facts = server.handle.metadata
    assert facts["backend"] == ground.backend
    assert f"backend={ground.backend!r} was asked for" in facts["backend_reason"]
    with psycopg.connect(server.handle.url) as connection:
        stated = connection.execute("SHOW server_version").fetchone()
    assert stated is not None
    assert stated[0].split()[0] == facts["version"]
    if ground.backend == "container":
        assert (len(facts["container_id"]), facts["image"]) == (64, ground.image)
    else:
        assert f"stands in for {ground.image}" in facts["backend_reason"]
        assert os.path.basename(facts["executable"]) == "postgres"
        os.kill(int(facts["pid"]), 0)


def test_ready_means_that_the_address_answers(ground: Ground, start: Start) -> None:
    """A first server that listens on no address, as images have it, is not taken for ready."""
    handle = start(ground.plugin())
    with psycopg.connect(handle.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    log = ground.plugin().logs(handle)
    assert log.count("ready to accept connections") == (2 if ground.backend == "container" else 1)


def test_a_handle_travels(ground: Ground) -> None:
    """Another plugin object of the name asks and stops by a handle that went through JSON."""
    handle = ServiceHandle.from_json(ground.plugin().start().to_json())
    other = ground.plugin()
    assert other.health_check(handle) is HealthStatus.HEALTHY
    other.stop(handle)
    assert other.health_check(handle) is HealthStatus.UNHEALTHY


def test_logs_are_those_of_the_server(server: Server) -> None:
    """The last lines of the server's log can be read, as many as were asked for."""
    assert "database system is ready" in server.plugin.logs(server.handle)
    assert len(server.plugin.logs(server.handle, 1).splitlines()) == 1


def test_stop_refuses_a_foreign_handle(server: Server) -> None:
    """A handle of another name, of an unknown id, or of no id at all is refused, with a hint."""
    handle = server.handle
    for foreign in (
        ServiceHandle(handle.id, "otherdb", handle.metadata),
        ServiceHandle(f"{handle.id}0", handle.service_name, handle.metadata),
        ServiceHandle("1", handle.service_name, handle.metadata),
    ):
        with pytest.raises(ServiceError, match="is not a service that this plugin") as caught:
            server.plugin.stop(foreign)
        assert caught.value.hint
        assert server.plugin.health_check(foreign) is HealthStatus.UNKNOWN
    assert server.plugin.health_check(handle) is HealthStatus.HEALTHY


def test_a_service_of_a_run_that_is_over(ground: Ground) -> None:
    """Of a run that is over nothing is known, and stopping what it had is fine."""
    handle = ServiceHandle("rffffffff-s0000", "testdb", {"backend": ground.backend})
    assert ground.plugin().health_check(handle) is HealthStatus.UNKNOWN
    ground.plugin().stop(handle)


# ------------------------------------------------------------------------ health


def freeze(handle: ServiceHandle, request: pytest.FixtureRequest) -> Callable[[], None]:
    """Freeze every process of the service. Returns what wakes them."""
    if handle.metadata["backend"] == "container":
        docker: DockerClient = request.getfixturevalue("docker_engine")
        container = docker.containers.get(handle.require("container_id"))
        container.pause()
        return container.unpause
    family = _family(int(handle.require("pid")))
    _signal(family, signal.SIGSTOP)
    return lambda: _signal(family, signal.SIGCONT)


def _signal(family: list[int], number: signal.Signals) -> None:
    for pid in family:
        with contextlib.suppress(ProcessLookupError):  # one whose client is gone ends by itself
            os.kill(pid, number)


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def asked_in_time(plugin: PostgresPlugin, handle: ServiceHandle) -> HealthStatus:
    began = time.monotonic()
    status = plugin.health_check(handle)
    assert time.monotonic() - began < BOUND + 0.5  # a busy machine may be late in telling
    return status


def test_unhealthy_when_killed(ground: Ground, left_over: Callable[[], list[str]]) -> None:
    """A killed server is unhealthy at once, and can still be stopped."""
    plugin = ground.plugin()
    handle = plugin.start()
    plugin.kill(handle)
    assert asked_in_time(plugin, handle) is HealthStatus.UNHEALTHY
    plugin.stop(handle)
    assert left_over() == []


def test_unhealthy_while_paused(
    ground: Ground, start: Start, request: pytest.FixtureRequest
) -> None:
    """A frozen server is unhealthy within the bound, and healthy when it goes on."""
    plugin = ground.plugin()
    handle = start(plugin)
    wake = freeze(handle, request)
    assert asked_in_time(plugin, handle) is HealthStatus.UNHEALTHY
    wake()
    assert plugin.health_check(handle) is HealthStatus.HEALTHY


def test_unhealthy_while_only_the_postmaster_is_paused(
    process_ground: Ground, start: Start
) -> None:
    """A server whose postmaster is frozen is unhealthy, whatever its other processes do."""
    plugin = process_ground.plugin()
    handle = start(plugin)
    os.kill(int(handle.require("pid")), signal.SIGSTOP)
    assert asked_in_time(plugin, handle) is HealthStatus.UNHEALTHY
    plugin.stop(handle)


def test_a_paused_service_can_be_stopped(
    ground: Ground, left_over: Callable[[], list[str]], request: pytest.FixtureRequest
) -> None:
    """Stopping a frozen server leaves nothing either."""
    plugin = ground.plugin()
    handle = plugin.start()
    freeze(handle, request)
    plugin.stop(handle)
    assert left_over() == []


def test_unhealthy_when_it_takes_no_more_connections(ground: Ground, start: Start) -> None:
    """A server whose connections are all taken refuses the question: it is unhealthy till then."""
    plugin = (
        ground.plugin()
        .with_setting("max_connections", 4)
        .with_setting("superuser_reserved_connections", 0)
        .with_setting("max_wal_senders", 0)
    )
    handle = start(plugin)
    with ExitStack() as connections:
        for _ in range(4):
            connections.enter_context(psycopg.connect(handle.url))
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            psycopg.connect(handle.url)
        assert asked_in_time(plugin, handle) is HealthStatus.UNHEALTHY
    assert plugin.health_check(handle) is HealthStatus.HEALTHY


def test_unhealthy_when_the_password_no_longer_fits(ground: Ground, start: Start) -> None:
    """A server that refuses the credentials of the handle is unhealthy."""
    plugin = ground.plugin()
    handle = start(plugin)
    with psycopg.connect(handle.url, autocommit=True) as connection:
        connection.execute("ALTER ROLE test PASSWORD 'another'")
    assert asked_in_time(plugin, handle) is HealthStatus.UNHEALTHY


def test_unknown_when_the_engine_is_silent(
    postgres_image: str, short_folder: Path, start: Start
) -> None:
    """A container that does not answer, on an engine that does not either, may be anything."""
    plugin = PostgresPlugin("testdb", postgres_image, backend="container")
    handle = start(plugin)
    plugin.kill(handle)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{short_folder}/silent.sock")
        silent.listen()
        metadata = {**handle.metadata, "engine": f"unix://{short_folder}/silent.sock"}
        elsewhere = ServiceHandle(handle.id, handle.service_name, metadata)
        assert asked_in_time(plugin, elsewhere) is HealthStatus.UNKNOWN
    assert plugin.health_check(handle) is HealthStatus.UNHEALTHY


def test_the_bound_of_a_health_check_can_be_set(process_ground: Ground, start: Start) -> None:
    """A health check takes no longer than the plugin was told."""
    plugin = process_ground.plugin(health_timeout=0.3)
    handle = start(plugin)
    os.kill(int(handle.require("pid")), signal.SIGSTOP)
    began = time.monotonic()
    assert plugin.health_check(handle) is HealthStatus.UNHEALTHY
    assert time.monotonic() - began < 1.5
    plugin.stop(handle)
