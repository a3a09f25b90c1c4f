"""A server that somebody else runs: only its empty databases are used, and it is left as found."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cleanroom import HealthStatus, ServiceError, StartTimeoutError, ValidationError
from cleanroom_plugin_redis import RedisPlugin
from cleanroom_plugin_redis._external import LEASES
from cleanroom_runtime import current_run
from tests.leftovers import gone_within, until
from tests.redis_grounds import Foreign, Start

BOUND = 5.0
"""Seconds within which nothing is left of a run, however it ended."""


def external(foreign: Foreign, database: int = 0, **options: object) -> RedisPlugin:
    return RedisPlugin("cache", url=foreign.url(database), **options)


# ------------------------------------------------------------------ what is used of it


def test_only_empty_databases_are_used(foreign: Foreign, start: Start) -> None:
    """Databases with somebody's data stay as they are; the empty ones are leased, then given up."""
    foreign.fill(0, 1, 3, 15)
    before = foreign.content()
    plugin = external(foreign)
    handle = plugin.start()
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    assert handle.url == foreign.url()
    facts = handle.metadata
    assert (facts["server"], facts["databases"], facts["backend"]) == ("redis", "16", "external")
    with ExitStack() as stack:
        isolated = [stack.enter_context(plugin.isolate(handle)) for _ in range(12)]
        numbers = {int(each.require("database_name")) for each in isolated}
        assert numbers == set(range(16)) - {0, 1, 3, 15}
        for each in isolated:
            with redis.Redis.from_url(each.url) as client:
                client.set("mine", 1)
        with pytest.raises(ServiceError, match="none of its 16 databases is empty") as caught:
            stack.enter_context(plugin.isolate(handle))
        assert LEASES in str(caught.value.hint)
    plugin.stop(handle)
    plugin.stop(handle)
    assert foreign.content() == before


def test_the_database_of_the_url_is_not_leased(foreign: Foreign) -> None:
    """The database that the URL leads to is the service's, so no test empties it."""
    plugin = external(foreign, 2)
    handle = plugin.start()
    assert handle.require("database_name") == "2"
    with ExitStack() as stack:
        isolated = [stack.enter_context(plugin.isolate(handle)) for _ in range(14)]
        numbers = {int(each.require("database_name")) for each in isolated}
    assert numbers == set(range(16)) - {0, 2}
    plugin.stop(handle)
    assert foreign.content() == {}


def test_two_services_on_one_server_do_not_meet(foreign: Foreign, start: Start) -> None:
    """What one service of a server uses, no other one does, whichever database its URL names."""
    one, other = external(foreign), RedisPlugin("other", url=foreign.url(5))
    with ExitStack() as stack:
        seen = []
        for plugin in (one, other):
            handle = start(plugin)
            for _ in range(6):
                isolated = stack.enter_context(plugin.isolate(handle))
                seen.append(isolated.require("database_name"))
    assert len(set(seen)) == 12


def test_data_that_comes_while_it_is_checked(
    foreign: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends between looking and claiming makes nobody empty what was not empty."""
    foreign.fill(1)
    plugin = external(foreign)
    handle = plugin.start()

    def die(*arguments: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("cleanroom_plugin_redis._external._is_empty", die)
    with pytest.raises(KeyboardInterrupt), plugin.isolate(handle):
        pass
    assert LEASES in foreign.content()[0]
    plugin.stop(handle)
    assert foreign.content() == {1: {"theirs": "of 1"}}


def test_a_server_that_tells_little(tmp_path: Path) -> None:
    """A user who may ask for no setting gets what databases there are."""
    settings = ["+@all", "-config", "~*", "on", ">pw"]
    foreign = Foreign(tmp_path, "--user", "guest", *settings, "--databases", "4")
    foreign.launch()
    try:
        foreign.until_it_answers()
        plugin = RedisPlugin("cache", url=f"redis://guest:pw@127.0.0.1:{foreign.port}")
        handle = plugin.start()
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(plugin.isolate(handle))
            with pytest.raises(ServiceError, match="is empty and free"):
                stack.enter_context(plugin.isolate(handle))
        plugin.stop(handle)
        assert foreign.content() == {}
    finally:
        foreign.end()


# ----------------------------------------------------------------- how sessions end

SUITE = """
    import os, pathlib, time
    import pytest

    HERE = pathlib.Path(__file__).parent

    @pytest.mark.parametrize("number", range(20))
    def test_it(redis_db, number):
        client = redis_db.client()
        assert client.dbsize() == 0
        assert client.incr("count") == 1
        client.set("text", "x" * number)
        assert client.get("text") == b"x" * number
        assert client.dbsize() == 2

    def test_last(redis_db, redis_service):
        redis_db.client().set("mine", 1)
        if os.environ.get("HOLD"):
            (HERE / "run").write_text(redis_service.id.partition("-")[0])
            (HERE / "run").rename(HERE / f"held-{os.getpid()}")
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                time.sleep(0.01)
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A test suite in a folder of its own."""
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[tool.pytest]\n")
    (folder / "test_it.py").write_text(textwrap.dedent(SUITE))
    return folder


def session(suite: Path, foreign: Foreign, *options: str, **env: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "CLEANROOM_REDIS_URL": foreign.url(), **env}
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(suite)],
        cwd=suite,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_two_runs_at_once(foreign: Foreign, suite: Path) -> None:
    """Two runs, of two workers each, use one server at once and do not meet."""
    foreign.fill(0, 2)
    before = foreign.content()
    sessions = [session(suite, foreign, "-n", "2", "-p", "randomly") for _ in range(2)]
    for each in sessions:
        output, _ = each.communicate(timeout=120)
        assert each.returncode == 0, output
    assert foreign.content() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_after_a_signal(foreign: Foreign, suite: Path, number: signal.Signals) -> None:
    """Whichever way a session ends, the server is soon as it was found."""
    foreign.fill(0, 1)
    before = foreign.content()
    with session(suite, foreign, "-k", "last", HOLD="1") as process:
        try:
            until(lambda: list(suite.glob("held-*")))
            assert foreign.content()[2] == {"mine": "1"}
        finally:
            process.send_signal(number)
        (held,) = suite.glob("held-*")
        gone_within(BOUND, held.read_text())
        assert foreign.content() == before
        process.communicate(timeout=10)


# ------------------------------------------------------------------------- trouble


def test_nobody_is_there(foreign: Foreign) -> None:
    """A server that cannot be reached is an error at once, with what to check."""
    foreign.end()
    with pytest.raises(ServiceError, match="cannot be reached") as caught:
        external(foreign).start()
    assert not isinstance(caught.value, StartTimeoutError)
    assert str(foreign.port) in caught.value.message
    assert (caught.value.service, caught.value.backend) == ("cache", "external")
    assert caught.value.hint


def test_another_password(foreign: Foreign) -> None:
    """A server that asks for another password is an error at once, which shows no password."""
    with foreign.client() as client:
        client.config_set("requirepass", "right")
    for user in ("", ":secret@", "alice:secret@"):
        url = f"redis://{user}127.0.0.1:{foreign.port}"
        with pytest.raises(ServiceError, match="asks for another password or user") as caught:
            RedisPlugin("cache", url=url).start()
        assert not isinstance(caught.value, StartTimeoutError)
        assert "URL" in str(caught.value.hint)
        assert "secret" not in str(caught.value)


def test_a_full_server(foreign: Foreign) -> None:
    """A server that is out of memory says so when a database is to be leased."""
    plugin = external(foreign)
    handle = plugin.start()
    with foreign.client() as client:
        client.config_set("maxmemory", "1mb")
        with pytest.raises(ServiceError, match="is out of memory") as caught:
            plugin.isolate(handle).__enter__()
        assert "maxmemory" in str(caught.value.hint)
        client.config_set("maxmemory", "0")
    plugin.stop(handle)
    assert foreign.content() == {}


@pytest.fixture
def loading(tmp_path: Path) -> Iterator[Foreign]:
    """A server that takes five seconds to load its data."""
    foreign = Foreign(tmp_path)
    foreign.launch()
    foreign.until_it_answers()
    with foreign.client() as client:
        client.mset({f"key {number}": os.urandom(100) for number in range(500)})
        client.save()
    foreign.end()
    # It answers only now and then while it loads: after so many bytes.
    slow = ("--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
    again = Foreign(tmp_path, *slow)
    again.launch()
    try:
        yield again
    finally:
        again.end()


def test_a_server_that_is_loading(loading: Foreign) -> None:
    """A server that loads its data is not ready before it has: the timeout says that it loads."""
    until(lambda: refuses_as_it_loads(loading))
    with pytest.raises(StartTimeoutError, match="is loading its data") as caught:
        external(loading, start_timeout=0.5).start()
    assert "start_timeout" in str(caught.value.hint)
    assert not getattr(caught.value, "__notes__", [])
    plugin = external(loading, start_timeout=60)
    handle = plugin.start()
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    with loading.client() as client:
        assert client.dbsize() == 500
    plugin.stop(handle)


def test_unhealthy_while_it_loads(tmp_path: Path) -> None:
    """A server that was healthy and loads its data again is unhealthy till it has."""
    foreign = Foreign(tmp_path, "--enable-debug-command", "local")
    foreign.launch()
    try:
        foreign.until_it_answers()
        check_health_while_it_loads(foreign)
    finally:
        foreign.end()


def check_health_while_it_loads(foreign: Foreign) -> None:
    with foreign.client() as client:
        client.mset({f"key {number}": os.urandom(100) for number in range(500)})
        client.config_set("loading-process-events-interval-bytes", "1024")
        client.config_set("key-load-delay", "10000")
    plugin = external(foreign)
    handle = plugin.start()

    def reload() -> None:
        with foreign.client(socket_timeout=60) as client:
            client.execute_command("DEBUG", "RELOAD")

    thread = threading.Thread(target=reload)
    thread.start()
    until(lambda: refuses_as_it_loads(foreign))
    assert plugin.health_check(handle) is HealthStatus.UNHEALTHY
    thread.join()
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    plugin.stop(handle)


def refuses_as_it_loads(server: Foreign) -> bool:
    try:
        with server.client(socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
            client.ping()
    except redis.exceptions.BusyLoadingError:
        return True
    except redis.RedisError:
        return False
    return False


def test_a_server_that_is_gone_when_the_run_ends(foreign: Foreign) -> None:
    """Giving up what was used of a server that is gone is an error that says so."""
    plugin = external(foreign)
    handle = plugin.start()
    with plugin.isolate(handle):
        pass
    foreign.end()
    assert plugin.health_check(handle) is HealthStatus.UNHEALTHY
    with pytest.raises(ServiceError, match="cannot be reached"):
        plugin.stop(handle)
    current_run().request("stop", id=handle.id)  # else later runs would try again


# ---------------------------------------------------------------------------- URLs


def test_urls_keep_what_clients_need() -> None:
    """Credentials, TLS and options of a URL are kept; only the number of the database changes."""
    from cleanroom_plugin_redis._client import at_database, parse_url

    url = "rediss://a%40b:p%2Fw@[::1]/3?ssl_cert_reqs=none&db=4"
    facts = parse_url(url)
    assert facts == {
        "host": "::1",
        "port": "6379",
        "username": "a@b",
        "password": "p/w",
        "database_name": "4",
        "url": "rediss://a%40b:p%2Fw@[::1]/4?ssl_cert_reqs=none",
    }
    other = at_database(facts, 7)
    assert other["url"] == "rediss://a%40b:p%2Fw@[::1]/7?ssl_cert_reqs=none"
    assert parse_url("valkey://h")["url"] == "redis://h/0"
    assert parse_url("valkeys://h")["url"] == "rediss://h/0"


@pytest.mark.parametrize("url", ["http://h", "redis://", "h:6379", "redis://:secret@h:99999", 1])
def test_urls_that_cannot_be(url: str) -> None:
    """What is no URL of a Redis server is refused, and its password not shown."""
    with pytest.raises(ValidationError, match="url is") as caught:
        RedisPlugin("cache", url=url)
    assert "secret" not in str(caught.value)


def test_a_url_with_a_name_for_a_number() -> None:
    """A database has a number; the error shows no password."""
    plugin = RedisPlugin("cache", url="redis://:secret@h/main")
    with pytest.raises(ValidationError, match="database 'main'") as caught:
        plugin.start()
    assert "secret" not in str(caught.value)


def test_a_server_that_never_answers() -> None:
    """It is given up when the time for the start is over."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        plugin = RedisPlugin(
            "cache", backend="external", url=f"redis://127.0.0.1:{port}", start_timeout=1
        )
        began = time.monotonic()
        with pytest.raises(ServiceError, match=str(port)):
            plugin.start()
        assert time.monotonic() - began < 4
