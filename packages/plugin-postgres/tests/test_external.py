"""A server that somebody else runs: isolated in, and left as it was found."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import psycopg.sql
import pytest

from cleanroom import CleanroomError, HealthStatus, ServiceError, ServiceHandle
from cleanroom_plugin_postgres import PostgresPlugin
from cleanroom_runtime import current_run
from tests.grounds import Ground, Server

Start = Callable[[PostgresPlugin], ServiceHandle]

CLEAN_UP = 20.0
"""Seconds within which what a killed client left is dropped; a busy machine needs some of them."""


@pytest.fixture
def ground(process_ground: Ground) -> Ground:
    """Any server will do, as it is somebody else's."""
    return process_ground


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    """The URL of the server; what it had before it must have afterwards."""
    before = inventory(server.handle.url)
    yield server.handle.url
    assert inventory(server.handle.url) == before


def inventory(url: str) -> list[tuple[Any, ...]]:
    """Everything there that all databases share."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT 'database', datname, datistemplate::text, datallowconn::text FROM pg_database "
            "UNION ALL SELECT 'role', rolname, NULL, NULL FROM pg_roles "
            "UNION ALL SELECT 'setting', setconfig::text, NULL, NULL FROM pg_db_role_setting "
            "ORDER BY 1, 2"
        ).fetchall()


def with_parts(url: str, **changes: str) -> str:
    """Return the URL with another user, password, host or port."""
    parts = urlsplit(url)
    known = {
        "user": parts.username, "password": parts.password, "host": parts.hostname,
        "port": parts.port, **changes,
    }  # fmt: skip
    return "postgresql://{user}:{password}@{host}:{port}".format(**known) + parts.path


@pytest.fixture
def role(server: Server) -> Iterator[Callable[[str], str]]:
    """Makes a role with these rights and returns the server's URL with it."""
    made: list[str] = []

    def role(rights: str) -> str:
        name, password = f"visitor@{len(made)} %", "p'a/s:s@w %ö"
        with psycopg.connect(server.handle.url, autocommit=True) as connection:
            sql = psycopg.sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} " + rights)
            connection.execute(sql.format(psycopg.sql.Identifier(name), password))
        made.append(name)
        return with_parts(
            server.handle.url, user=quote(name, safe=""), password=quote(password, safe="")
        )

    yield role
    with psycopg.connect(server.handle.url, autocommit=True) as connection:
        for name in made:
            connection.execute(psycopg.sql.SQL("DROP ROLE {}").format(psycopg.sql.Identifier(name)))


def test_isolated_in_and_left_as_it_was_found(url: str) -> None:
    """The service is a database of its own there; after the stop nothing is left of it."""
    before = inventory(url)
    plugin = PostgresPlugin("db", database_name="shop", url=url).with_init_script(
        "CREATE TABLE item (name text); INSERT INTO item VALUES ('one')"
    )
    handle = plugin.start()
    assert handle.require("backend") == "external"
    assert handle.require("backend_reason") == "a URL was given"
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    with plugin.isolate(handle) as isolated, psycopg.connect(isolated.url) as connection:
        connection.execute("INSERT INTO item VALUES ('two')")
    with plugin.isolate(handle) as isolated, psycopg.connect(isolated.url) as connection:
        assert connection.execute("SELECT name FROM item").fetchall() == [("one",)]
    made = [row[1] for row in inventory(url) if row not in before]
    assert handle.require("database_name") in made
    assert all(name.startswith("shop_") for name in made)
    plugin.stop(handle)
    assert inventory(url) == before
    plugin.stop(handle)
    assert plugin.health_check(handle) is HealthStatus.UNHEALTHY


def test_the_url_may_stand_in_the_environment(
    url: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`CLEANROOM_<SERVICE>_URL` names the server for the service of that name."""
    monkeypatch.setenv("CLEANROOM_MY_DB_URL", url)
    handle = start(PostgresPlugin("my-db"))
    assert handle.require("backend") == "external"
    assert handle.port == urlsplit(url).port


def test_long_names_stay_within_the_limit_of_the_server(url: str, start: Start) -> None:
    """The longest database name works: what is added to it is not cut off."""
    plugin = PostgresPlugin("db", database_name="n" * 40, url=url).with_init_script("SELECT 1")
    handle = start(plugin)
    with plugin.isolate(handle) as isolated, psycopg.connect(isolated.url) as connection:
        name = connection.execute("SELECT current_database()").fetchone()
    assert name == (isolated.require("database_name"),)


def test_parameters_of_the_url_are_kept(url: str, start: Start) -> None:
    """What the URL says about how to connect holds for every database that is made there."""
    plugin = PostgresPlugin("db", url=f"{url}?options=-c%20work_mem%3D7MB&connect_timeout=9")
    handle = start(plugin)
    with plugin.isolate(handle) as isolated, psycopg.connect(isolated.url) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("7MB",)


def test_an_ordinary_user_who_may_create_databases(
    url: str, role: Callable[[str], str], start: Start
) -> None:
    """The right to create databases is enough; name and password may have odd characters."""
    plugin = PostgresPlugin("db", url=role("CREATEDB"))
    handle = plugin.start()
    with plugin.isolate(handle) as isolated, psycopg.connect(isolated.url) as connection:
        connection.execute("CREATE TABLE item (name text)")
    assert "p'a/s" not in repr(handle)
    plugin.stop(handle)


def test_a_user_who_may_not_create_databases(url: str, role: Callable[[str], str]) -> None:
    """Without that right the error says who lacks it, and what to do."""
    with pytest.raises(ServiceError) as caught:
        PostgresPlugin("db", url=role("")).start()
    assert "does not let user 'visitor@0 %' make and drop databases" in caught.value.message
    assert "permission denied to create database" in caught.value.message
    assert caught.value.hint == 'as its administrator: ALTER ROLE "visitor@0 %" CREATEDB'
    assert (caught.value.service, caught.value.backend) == ("db", "external")


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("password", "hidden", "password authentication failed"),
        ("host", "127.0.0.2", "cannot be used"),
        ("host", "no-such-host.invalid", "no-such-host.invalid"),
        ("port", "1", "Connection refused"),
    ],
)
def test_a_server_that_cannot_be_used(url: str, part: str, value: str, says: str) -> None:
    """A wrong password, host or port is told at once, without the password."""
    began = time.monotonic()
    with pytest.raises(ServiceError) as caught:
        PostgresPlugin("db", url=with_parts(url, **{part: value})).start()
    assert time.monotonic() - began < 20
    assert says in caught.value.message
    assert "check host, port, user, password" in str(caught.value.hint)
    assert "hidden" not in str(caught.value)


def test_an_init_script_that_fails(url: str) -> None:
    """When the start fails after the database was made, it is dropped again."""
    with pytest.raises(CleanroomError, match="init script 1, line 1"):
        PostgresPlugin("db", url=url).with_init_script("SELECT nothing").start()


def test_a_server_that_has_gone(process_ground: Ground) -> None:
    """Stopping where the server is gone says that it cannot be reached."""
    other = process_ground.plugin("other")
    elsewhere = other.start()
    plugin = PostgresPlugin("db", url=elsewhere.url)
    handle = plugin.start()
    other.stop(elsewhere)
    assert plugin.health_check(handle) is HealthStatus.UNHEALTHY
    with pytest.raises(ServiceError, match="cannot be used"):
        plugin.stop(handle)
    current_run().request("stop", id=handle.id)  # else later runs would try again


KILLED = """
import os, signal, sys
from cleanroom_plugin_postgres import PostgresPlugin
plugin = PostgresPlugin("db", database_name="killed", url=sys.argv[1])
handle = plugin.with_init_script("SELECT 1").start()
with plugin.isolate(handle):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_client_leaves_nothing(url: str) -> None:
    """What a client that was killed had made there is dropped soon after."""
    done = subprocess.run([sys.executable, "-c", KILLED, url], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    deadline = time.monotonic() + CLEAN_UP
    while any("killed" in str(row[1]) for row in inventory(url)):
        assert time.monotonic() < deadline, "still there"
        time.sleep(0.05)


def test_a_server_that_never_answers() -> None:
    """It is given up when the time for the start is over."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        plugin = PostgresPlugin(
            "db", backend="external", url=f"postgresql://127.0.0.1:{port}", start_timeout=1
        )
        began = time.monotonic()
        with pytest.raises(ServiceError, match=str(port)):
            plugin.start()
        assert time.monotonic() - began < 4
