"""The plugin does the same on every backend: each test runs on every ground there is."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cleanroom import HealthStatus, ServiceError, ServiceHandle
from cleanroom_plugin_redis import RedisPlugin
from tests.leftovers import command, left_of_service, processes_of
from tests.redis_grounds import Ground, Server, Start

BOUND = 2.0
"""Seconds within which a health check answers."""


# ----------------------------------------------------------------- start, ask, stop


def test_the_reference_example(ground: Ground) -> None:
    """The example of the documentation starts, is healthy, and leaves nothing when stopped."""
    in_engine = ground.backend == "container"
    plugin = RedisPlugin("cache", ground.image, backend=ground.backend).with_password("testpass")
    handle = plugin.start()
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    assert handle.service_name == "cache"
    assert handle.url == f"redis://:testpass@{handle.host}:{handle.port}/0"
    assert handle.require("password") == "testpass"
    assert handle.require("database_name") == "0"
    with redis.Redis.from_url(handle.url) as client:
        assert client.set("key", "value")
        assert client.get("key") == b"value"
    assert left_of_service(handle.id, engine=in_engine)
    plugin.stop(handle)
    assert left_of_service(handle.id, engine=in_engine) == []
    plugin.stop(handle)
    assert plugin.health_check(handle) is HealthStatus.UNHEALTHY


def test_metadata_says_what_runs_and_why(ground: Ground, server: Server) -> None:
    """The handle says which backend was chosen and why, which kind of server it is and which."""
    facts = server.handle.metadata
    assert facts["backend"] == ground.backend
    assert f"backend={ground.backend!r} was asked for" in facts["backend_reason"]
    assert facts["server"] == ground.kind
    with redis.Redis.from_url(server.handle.url, decode_responses=True) as client:
        info = client.info("server")
    assert facts["version"] == info[f"{ground.kind}_version"]
    if ground.backend == "container":
        assert (len(facts["container_id"]), facts["image"]) == (64, ground.image)
    else:
        assert f"stands in for {ground.image}" in facts["backend_reason"]
        assert os.path.basename(facts["executable"]) == f"{ground.kind}-server"
        os.kill(int(facts["pid"]), 0)


def test_a_password_is_asked_for(server: Server) -> None:
    """Nobody is let in without the password, which is another one for each plugin."""
    with (
        redis.Redis(host=server.handle.host, port=server.handle.port) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()
    assert RedisPlugin().describe("h", 1)["password"] != RedisPlugin().describe("h", 1)["password"]


def test_a_handle_travels(ground: Ground) -> None:
    """Another plugin object of the name asks and stops by a handle that went through JSON."""
    handle = ServiceHandle.from_json(ground.plugin().start().to_json())
    other = ground.plugin()
    assert other.health_check(handle) is HealthStatus.HEALTHY
    other.stop(handle)
    assert other.health_check(handle) is HealthStatus.UNHEALTHY


def test_logs_are_those_of_the_server(server: Server) -> None:
    """The last lines of the server's log can be read, as many as were asked for."""
    assert "eady to accept connections" in server.plugin.logs(server.handle)
    assert len(server.plugin.logs(server.handle, 1).splitlines()) == 1


def test_nothing_listens_beyond_this_machine(process_ground: Ground, start: Start) -> None:
    """A process is bound to the loopback address alone."""
    handle = start(process_ground.plugin())
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{handle.port:04X}")]
    assert ends == [f"0100007F:{handle.port:04X}"]
    assert f":{handle.port:04X} " not in Path("/proc/net/tcp6").read_text()


# ----------------------------------------------------------------------- secrets


def test_secrets_show_nowhere(
    ground: Ground,
    start: Start,
    exporter: InMemorySpanExporter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Odd passwords work, and show in no repr, log, span, report nor command line."""
    caplog.set_level(logging.DEBUG)
    password = "secret one ö'\"\\ %s@:/?#&=(x)`$"
    other = "secret two \"\\ 'x"
    plugin = ground.plugin().with_password(password).with_user("alice", other)
    handle = start(plugin)
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    with plugin.isolate(handle) as isolated, redis.Redis.from_url(isolated.url) as client:
        assert client.ping()
        with pytest.raises(redis.AuthenticationError):
            client.execute_command("AUTH", "nobody", password)
    with redis.Redis(
        host=handle.host, port=handle.port, username="alice", password=other
    ) as client:
        assert client.ping()
    spans = "\n".join(span.to_json() for span in exporter.get_finished_spans())
    commands = [command(pid) for pid in processes_of(handle.id.partition("-")[0])]
    assert ground.backend == "container" or any(f":{handle.port}" in each for each in commands)
    for shown in (
        repr(plugin),
        repr(handle),
        str(handle),
        plugin.logs(handle, 10_000),
        spans,
        caplog.text,
        *commands,
    ):
        assert "secret" not in shown


# ------------------------------------------------------------------------ health


def asked_in_time(plugin: RedisPlugin, handle: ServiceHandle) -> HealthStatus:
    began = time.monotonic()
    status = plugin.health_check(handle)
    assert time.monotonic() - began < BOUND + 0.5  # a busy machine may be late in telling
    return status


def freeze(handle: ServiceHandle, request: pytest.FixtureRequest) -> Callable[[], object]:
    """Freeze the service. Returns what wakes it."""
    if handle.metadata["backend"] == "container":
        docker = request.getfixturevalue("docker_engine")
        container = docker.containers.get(handle.require("container_id"))
        container.pause()
        return lambda: container.unpause()
    pid = int(handle.require("pid"))
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def test_unhealthy_when_killed(ground: Ground) -> None:
    """A killed server is unhealthy at once, and can still be stopped."""
    plugin = ground.plugin()
    handle = plugin.start()
    plugin.kill(handle)
    assert asked_in_time(plugin, handle) is HealthStatus.UNHEALTHY
    plugin.stop(handle)
    assert left_of_service(handle.id, engine=ground.backend == "container") == []


def test_unhealthy_while_frozen(ground: Ground, request: pytest.FixtureRequest) -> None:
    """A frozen server is unhealthy within the bound, healthy when it goes on, and stops frozen."""
    plugin = ground.plugin()
    handle = plugin.start()
    wake = freeze(handle, request)
    assert asked_in_time(plugin, handle) is HealthStatus.UNHEALTHY
    wake()
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    freeze(handle, request)
    plugin.stop(handle)
    assert left_of_service(handle.id, engine=ground.backend == "container") == []


def test_unhealthy_while_busy(ground: Ground, start: Start) -> None:
    """A server that is kept busy by a script is unhealthy till it answers again."""
    plugin = ground.plugin().with_setting("busy-reply-threshold", 100)
    handle = start(plugin)
    with redis.Redis.from_url(handle.url, socket_timeout=0.5) as client:
        with pytest.raises(redis.RedisError):
            client.eval("while true do end", 0)
        assert asked_in_time(plugin, handle) is HealthStatus.UNHEALTHY
        client.script_kill()
    assert plugin.health_check(handle) is HealthStatus.HEALTHY


def test_unhealthy_when_the_password_no_longer_fits(ground: Ground, start: Start) -> None:
    """A server that refuses the credentials of the handle is unhealthy."""
    plugin = ground.plugin()
    handle = start(plugin)
    with redis.Redis.from_url(handle.url) as client:
        client.config_set("requirepass", "another")
    assert asked_in_time(plugin, handle) is HealthStatus.UNHEALTHY


def test_the_bound_of_a_health_check_can_be_set(process_ground: Ground) -> None:
    """A health check takes no longer than the plugin was told."""
    plugin = process_ground.plugin(health_timeout=0.3)
    handle = plugin.start()
    os.kill(int(handle.require("pid")), signal.SIGSTOP)
    began = time.monotonic()
    assert plugin.health_check(handle) is HealthStatus.UNHEALTHY
    assert time.monotonic() - began < 1
    plugin.stop(handle)


SCRIPT = """
from cleanroom_plugin_redis import RedisPlugin

plugin = RedisPlugin("cache", backend="process")
handle = plugin.start()
with plugin.isolate(handle):
    plugin.stop(handle)
"""


def test_a_script_ends_without_a_warning() -> None:
    """What is left open until the process ends, on purpose, is nothing for Python to warn of."""
    argv = [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


# ------------------------------------------------------------- which server may serve


def test_no_image_takes_the_embedded_server(start: Start, no_engine: None) -> None:
    """With no image named, the server of the `embedded` extra serves, and the reason says so."""
    handle = start(RedisPlugin())
    assert handle.require("server") == "valkey"
    assert "valkey of the embedded extra" in handle.require("backend_reason")


def test_valkey_does_not_stand_in_for_redis(
    no_engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image of Redis is a promise that no Valkey keeps, nor another major version."""
    for image, says in (("redis:99-alpine", "promises version 99"), ("acme/redis:7", "official")):
        with pytest.raises(ServiceError, match=says) as caught:
            RedisPlugin("cache", image).start()
        assert "valkey" not in caught.value.message
        assert caught.value.hint
    monkeypatch.setattr("cleanroom_plugin_redis._servers._PROGRAMS", {"valkey-server": "valkey"})
    with pytest.raises(ServiceError, match="found here: none") as caught:
        RedisPlugin("cache", "redis:7").start()
    assert "name no image" in str(caught.value.hint)
