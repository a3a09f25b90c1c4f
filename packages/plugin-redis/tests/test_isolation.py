"""Each test has an empty database of its own, under a number that stays the same."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest
import redis

from cleanroom import ServiceError, ServiceHandle
from cleanroom_plugin_redis import Database, RedisPlugin
from tests.leftovers import is_running, until
from tests.redis_grounds import Ground, Server, Start


def test_what_a_test_wrote_is_gone(server: Server) -> None:
    """The next lease has the same number and URL, and is empty, whatever was written."""
    seen = []
    for _ in range(3):
        with server.plugin.isolate(server.handle) as isolated, client_of(isolated) as client:
            assert client.dbsize() == 0
            client.set("text", "x")
            client.rpush("list", 1, 2)
            client.xadd("stream", {"a": 1})
            client.set("later", "x", ex=1000)
            seen.append((isolated.url, isolated.require("database_name")))
    assert len(set(seen)) == 1
    assert seen[0][1] != "0"


def test_databases_at_once_are_apart(server: Server) -> None:
    """Leases at the same time, from many threads, have databases of their own."""
    together = threading.Barrier(16)
    urls: list[str] = []
    failures: list[Exception] = []

    def work(number: int) -> None:
        try:
            with server.plugin.isolate(server.handle) as isolated, client_of(isolated) as client:
                urls.append(isolated.url)
                assert client.set("key", number)
                together.wait(30)
                assert client.get("key") == str(number).encode()
                assert client.dbsize() == 1
        except Exception as exc:  # noqa: BLE001 - told to the test
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(set(urls)) == 16


def test_there_are_enough_for_many_workers(process_ground: Ground, start: Start) -> None:
    """64 workers with 4 databases each find room on one server."""
    plugin = process_ground.plugin()
    handle = start(plugin)
    with ExitStack() as stack:
        urls = {stack.enter_context(plugin.isolate(handle)).url for _ in range(64 * 4)}
        assert len(urls) == 64 * 4


def test_no_database_is_left(process_ground: Ground, start: Start) -> None:
    """Who asks for more databases than there are is told how to get more."""
    plugin = process_ground.plugin().with_setting("databases", 3)
    handle = start(plugin)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(plugin.isolate(handle))
        with pytest.raises(ServiceError, match="all of its 3 databases are in use") as caught:
            stack.enter_context(plugin.isolate(handle))
    assert "databases" in str(caught.value.hint)
    with plugin.isolate(handle):
        pass  # given back, they can be leased again


def test_the_database_of_the_service_stays(server: Server) -> None:
    """What is in the service's own database is no test's, and no lease empties it."""
    with client_of(server.handle) as client:
        client.set("seed", "x")
        with server.plugin.isolate(server.handle):
            pass
        with server.plugin.isolate(server.handle) as isolated, client_of(isolated) as other:
            assert other.get("seed") is None
        assert client.getdel("seed") == b"x"


def test_never_everything_is_flushed(ground: Ground, start: Start) -> None:
    """The server is never told to empty all its databases."""
    plugin = ground.plugin()
    handle = start(plugin)
    for _ in range(3):
        with plugin.isolate(handle) as isolated, client_of(isolated) as client:
            client.set("key", 1)
    with client_of(handle) as client:
        commands = client.info("commandstats")
    assert commands["cmdstat_flushdb"]["calls"] == 3
    assert "cmdstat_flushall" not in commands


def test_connections_stay_open(server: Server) -> None:
    """A service that keeps its connection goes on with it from test to test, and finds no data."""
    with server.plugin.isolate(server.handle) as isolated:
        service = client_of(isolated)
        before = service.client_id()
        service.set("key", 1)
    with server.plugin.isolate(server.handle) as isolated, client_of(isolated) as client:
        assert service.get("key") is None
        client.set("key", 2)
        assert service.get("key") == b"2"
        assert service.client_id() == before
    service.close()


def test_a_test_may_end_all_connections(server: Server) -> None:
    """Isolation goes on after a test has ended the connections of everybody."""
    for _ in range(2):
        with server.plugin.isolate(server.handle) as isolated, client_of(isolated) as client:
            assert client.dbsize() == 0
            client.set("key", 1)
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def test_a_server_that_is_gone(process_ground: Ground, start: Start) -> None:
    """Leasing from a killed server fails at once; its number is not lost."""
    plugin = process_ground.plugin()
    handle = start(plugin)
    with plugin.isolate(handle):
        pass
    plugin.kill(handle)
    for _ in range(2):
        with pytest.raises((redis.ConnectionError, ServiceError)):
            plugin.isolate(handle).__enter__()


HOLD = """
    import sys
    from cleanroom import ServiceHandle
    from cleanroom_plugin_redis import RedisPlugin

    handle = ServiceHandle.from_json(sys.stdin.readline())
    with RedisPlugin(handle.service_name).isolate(handle) as isolated:
        print(isolated.url, flush=True)
        sys.stdin.read()
"""


@contextmanager
def worker(handle: ServiceHandle) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds a lease. Yields it and the URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(handle.to_json() + "\n")
        process.stdin.flush()
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_what_a_killed_worker_had(process_ground: Ground, start: Start) -> None:
    """Processes do not share a database; that of a killed one is leased again, and is empty."""
    handle = start(process_ground.plugin())
    with worker(handle) as (_, first), worker(handle) as (process, second):
        assert first != second
        with redis.Redis.from_url(second) as client:
            client.set("key", 1)
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: not is_running(process.pid))
        with worker(handle) as (_, third):
            assert third == second
            with redis.Redis.from_url(third) as client:
                assert client.dbsize() == 0


def client_of(handle: ServiceHandle) -> redis.Redis:
    return redis.Redis.from_url(handle.url)


# ------------------------------------------------------------------ what tests are given


def test_database(server: Server) -> None:
    """A database has its URL, its number, and clients that are closed with it."""
    with server.plugin.isolate(server.handle) as isolated:
        database = Database(isolated)
        assert database.url == isolated.url
        assert database.name == str(database.number) == isolated.require("database_name")
        assert isolated.require("password") not in repr(database)
        client = database.client(decode_responses=True, client_name="mine")
        client.set("key", "value")
        assert client.get("key") == "value"
        assert client.client_getname() == "mine"
        assert client.connection_pool.connection_kwargs["db"] == database.number
        database.close()
        with redis.Redis.from_url(database.url, decode_responses=True) as other:
            assert "mine" not in [each["name"] for each in other.client_list()]


def test_the_connection_of_the_test_before(server: Server) -> None:
    """A test's first client has the connection of the test before, of which nothing is left."""
    seen = []
    for _ in range(4):
        with server.plugin.isolate(server.handle) as isolated:
            database = Database(isolated)
            client = database.client()
            assert client.dbsize() == 0
            assert client.client_getname() is None
            [own] = [each for each in client.client_list() if int(each["id"]) == client.client_id()]
            assert own["db"] == database.name
            seen.append(client.client_id())
            client.client_setname("mine")
            client.set("key", "value")
            client.execute_command("WATCH", "key")
            client.execute_command("SELECT", 0)
            database.close()
    assert len(set(seen)) == 1


@pytest.mark.parametrize(
    "leave",
    [
        lambda client: client.connection_pool.disconnect(),
        lambda client: client.execute_command("CLIENT", "KILL", "SKIPME", "no", "TYPE", "normal"),
        lambda client: _left_unread(client),
        lambda client: client.pubsub().subscribe("channel"),
    ],
    ids=["closed", "killed", "answers nobody read", "lent"],
)
def test_a_connection_that_cannot_be_used_again(
    server: Server, leave: Callable[[redis.Redis], object]
) -> None:
    """Where the connection of the test before is of no use, the next test has another one."""
    for _ in range(3):
        with server.plugin.isolate(server.handle) as isolated:
            database = Database(isolated)
            client = database.client()
            assert client.dbsize() == 0
            client.set("key", "value")
            leave(client)
            database.close()


def _left_unread(client: redis.Redis) -> None:
    connection = client.connection_pool.get_connection()
    connection.send_command("PING")
    client.connection_pool.release(connection)


def test_clients_of_one_test_are_apart(server: Server) -> None:
    """Whatever asks within one test for a client has one with connections of its own."""
    with server.plugin.isolate(server.handle) as isolated, ExitStack() as opened:
        databases = [opened.enter_context(closing(Database(isolated))) for _ in range(2)]
        clients = [each.client() for each in [*databases, *databases]]
        assert len({client.client_id() for client in clients}) == 4


def test_what_cannot_be_selected_is_not_emptied(process_ground: Ground, start: Start) -> None:
    """Emptying through a test's own connection never empties another database."""
    plugin = process_ground.plugin()
    handle = start(plugin)
    with client_of(handle) as zero:
        zero.set("key", "of nobody's test")
        for _ in range(2):
            with plugin.isolate(handle) as isolated:
                Database(isolated).client().set("key", "value")
        zero.execute_command("ACL", "SETUSER", "default", "-select")
        with plugin.isolate(handle):
            zero.execute_command("ACL", "SETUSER", "default", "+select")
        assert zero.get("key") == b"of nobody's test"


def test_any_client_takes_the_url(server: Server) -> None:
    """The URL names all that is needed: a client of nothing but a socket gets by with it."""
    from urllib.parse import unquote, urlsplit

    with server.plugin.isolate(server.handle) as isolated:
        url = urlsplit(isolated.url)
        assert url.scheme == "redis"
        assert url.hostname is not None
        with (
            socket.create_connection((url.hostname, url.port or 0), 5) as connection,
            connection.makefile("rb") as answers,
        ):
            for command in (
                f"AUTH {unquote(url.password or '')}",
                f"SELECT {url.path[1:]}",
                "SET plain 1",
            ):
                connection.sendall(f"{command}\r\n".encode())
                assert answers.readline() == b"+OK\r\n"
        with client_of(isolated) as client:
            assert client.get("plain") == b"1"


def test_settings_of_a_lease(process_ground: Ground, start: Start) -> None:
    """The handle of a lease is the service's, but for the database it leads to."""
    plugin: RedisPlugin = process_ground.plugin()
    handle = start(plugin)
    with plugin.isolate(handle) as isolated:
        differing = {
            key for key, value in isolated.metadata.items() if handle.metadata.get(key) != value
        }
        assert differing == {"database_name", "url"}
        assert (isolated.id, isolated.service_name) == (handle.id, handle.service_name)


def test_lease_of_a_server_that_is_gone(process_ground: Ground, start: Start) -> None:
    """Whoever asks the plugin itself is told which service it is, and that it has ended."""
    plugin = process_ground.plugin()
    handle = start(plugin)
    plugin.kill(handle)
    with (
        pytest.raises(ServiceError, match="it stopped working during the session") as caught,
        plugin.isolate(handle),
    ):
        pass
    assert caught.value.service == "cache"


def test_server_that_cannot_be_emptied(process_ground: Ground, start: Start) -> None:
    """What the server refuses is an error of ours as well."""
    plugin = process_ground.plugin().with_setting("rename-command", 'FLUSHDB ""')
    handle = start(plugin)
    with (
        pytest.raises(ServiceError, match="it runs, and could not be made clean") as caught,
        plugin.isolate(handle),
    ):
        pass
    assert caught.value.service == "cache"
