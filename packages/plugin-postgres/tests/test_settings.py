"""Credentials, environment, settings and init scripts mean the same on every backend."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from pathlib import Path

import psycopg
import psycopg.sql
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cleanroom import CleanroomError, HealthStatus, ServiceError, ServiceHandle
from cleanroom_plugin_postgres import PostgresPlugin
from tests.grounds import Ground, Server

Start = Callable[[PostgresPlugin], ServiceHandle]
LeftOver = Callable[[], list[str]]


def query(handle: ServiceHandle, statement: str) -> object:
    with psycopg.connect(handle.url) as connection:
        row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]


# ------------------------------------------------------------------ credentials

ODD = "ö %s@:/?#&=(x)`"


def test_odd_credentials(
    ground: Ground,
    start: Start,
    exporter: InMemorySpanExporter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Quotes, spaces, URL signs and letters beyond ASCII work, and the password shows nowhere."""
    caplog.set_level(logging.DEBUG)
    password = f"secret'\"$\\{ODD}"
    plugin = (
        ground.plugin()
        .with_credentials(f"user{ODD}", password)
        .with_setting("log_statement", "all")
    )
    handle = start(plugin)
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    assert query(handle, "SELECT current_user") == f"user{ODD}"
    with plugin.isolate(handle) as isolated:
        assert query(isolated, "SELECT current_user") == f"user{ODD}"
    with psycopg.connect(handle.url) as connection:  # whoever sets it again, tells the log
        again = psycopg.sql.SQL("ALTER ROLE CURRENT_USER PASSWORD {}").format(password)
        connection.execute(again)
    spans = "\n".join(span.to_json() for span in exporter.get_finished_spans())
    for shown in (repr(plugin), repr(handle), plugin.logs(handle, 10_000), spans, caplog.text):
        assert "secret" not in shown
    assert "ALTER ROLE CURRENT_USER" in plugin.logs(handle, 10_000)


def test_a_user_named_like_the_maintenance_database(ground: Ground, start: Start) -> None:
    """The user `postgres`, which the official image has by default, is as good as any other."""
    handle = start(ground.plugin().with_credentials("postgres", "postgres"))
    assert query(handle, "SELECT current_user || ' ' || current_database()") == "postgres testdb"


def test_the_password_is_asked_for(server: Server) -> None:
    """Unless told otherwise, the server lets nobody in without the password."""
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.handle.url, password="wrong")


# ------------------------------------------------------------------ environment


def test_initdb_arguments(ground: Ground, start: Start) -> None:
    """`POSTGRES_INITDB_ARGS` reaches initdb, split as a shell would."""
    arguments = "--wal-segsize=2 --lc-collate='C' --auth-host=md5"
    handle = start(ground.plugin().with_env("POSTGRES_INITDB_ARGS", arguments))
    assert query(handle, "SHOW wal_segment_size") == "2MB"
    assert query(handle, "SELECT datcollate FROM pg_database WHERE datname = 'testdb'") == "C"
    assert query(handle, "SHOW password_encryption") == "md5"


def test_initdb_may_ask_for_passwords_on_sockets(process_ground: Ground, start: Start) -> None:
    """The private socket, over which the password is set, stays open to the plugin."""
    handle = start(process_ground.plugin().with_env("POSTGRES_INITDB_ARGS", "--auth=md5"))
    assert query(handle, "SHOW password_encryption") == "md5"


def test_trusting_server(ground: Ground, start: Start) -> None:
    """`POSTGRES_HOST_AUTH_METHOD=trust` lets everybody in."""
    handle = start(ground.plugin().with_env("POSTGRES_HOST_AUTH_METHOD", "trust"))
    with psycopg.connect(handle.url, password="wrong") as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("test",)


def test_environment_of_the_server(ground: Ground, start: Start) -> None:
    """Any other variable is in the environment of the server."""
    handle = start(ground.plugin().with_env("SHOP_COLOUR", "dark green; $x"))
    with psycopg.connect(handle.url) as connection:
        connection.execute("CREATE TEMP TABLE seen (colour text)")
        connection.execute("""COPY seen FROM PROGRAM 'echo "$SHOP_COLOUR"'""")
        assert connection.execute("SELECT colour FROM seen").fetchone() == ("dark green; $x",)


def test_initdb_says_what_it_refuses(ground: Ground, left_over: LeftOver) -> None:
    """An argument that initdb does not know is an error with initdb's own words."""
    plugin = ground.plugin().with_env("POSTGRES_INITDB_ARGS", "--no-such-thing")
    with pytest.raises(ServiceError) as caught:
        plugin.start()
    assert "no-such-thing" in str(caught.value)
    assert caught.value.hint
    assert left_over() == []


# --------------------------------------------------------------------- settings


def test_settings(ground: Ground, start: Start) -> None:
    """Settings are taken as text, number and truth value, and win over the plugin's own."""
    plugin = (
        ground.plugin()
        .with_setting("work_mem", "5MB")
        .with_setting("max_connections", 17)
        .with_setting("seq_page_cost", 1.5)
        .with_setting("autovacuum", True)
        .with_setting("enable_seqscan", False)
        .with_setting("shop.greeting", 'it\'s "odd" \\ and long')
    )
    handle = start(plugin)
    names = ["work_mem", "max_connections", "seq_page_cost", "autovacuum", "enable_seqscan"]
    assert [query(handle, f"SHOW {name}") for name in names] == ["5MB", "17", "1.5", "on", "off"]
    assert query(handle, "SHOW shop.greeting") == 'it\'s "odd" \\ and long'


def test_durability_is_off(server: Server) -> None:
    """Data that is thrown away is not written as if it were to be kept."""
    handle = server.handle
    names = ["fsync", "synchronous_commit", "full_page_writes"]
    assert [query(handle, f"SHOW {name}") for name in names] == ["off", "off", "off"]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("work_mem", "plenty", 'invalid value for parameter "work_mem"'),
        ("no_such_setting", 1, "no_such_setting"),
    ],
)
def test_a_setting_the_server_refuses(
    ground: Ground, left_over: LeftOver, key: str, value: str | int, says: str
) -> None:
    """A setting that is wrong ends the start at once, with what the server wrote about it."""
    with pytest.raises(ServiceError, match="ended while it was starting") as caught:
        ground.plugin().with_setting(key, value).start()
    assert says in str(caught.value.log_tail)
    assert (caught.value.service, caught.value.backend) == ("testdb", ground.backend)
    assert left_over() == []


# ----------------------------------------------------------------- init scripts


def test_init_scripts(ground: Ground, start: Start, tmp_path: Path) -> None:
    """Text, file and packed file run in order, each in a session of its own."""
    plain, packed = tmp_path / "one.sql", tmp_path / "two.sql.gz"
    plain.write_text("INSERT INTO item VALUES ('plain');\nSET search_path TO nowhere;\n")
    packed.write_bytes(gzip.compress(b"INSERT INTO item VALUES ('packed');"))
    plugin = (
        ground.plugin()
        .with_init_script("CREATE TABLE item (name text); INSERT INTO item VALUES ('text')")
        .with_init_script(plain)
        .with_init_script(packed)
    )
    handle = start(plugin)
    everything = "SELECT string_agg(name, ' ') FROM item"
    assert query(handle, everything) == "text plain packed"
    with plugin.isolate(handle) as isolated:
        assert query(isolated, everything) == "text plain packed"
        assert isolated.require("database_name") != "testdb"


def test_an_init_script_that_fails(ground: Ground, left_over: LeftOver, tmp_path: Path) -> None:
    """The error names script and line, shows the line and says what the server said."""
    script = tmp_path / "broken.sql"
    script.write_text("CREATE TABLE a (x int);\n\nINSERT INTO b VALUES (1);\n")
    with pytest.raises(ServiceError) as caught:
        ground.plugin().with_init_script(script).start()
    message = caught.value.message
    assert f"{script}, line 3" in message
    assert "INSERT INTO b VALUES (1)" in message
    assert 'relation "b" does not exist' in message
    assert left_over() == []


def test_an_init_script_that_fails_has_a_number(ground: Ground, left_over: LeftOver) -> None:
    """A script without a file is named by its place."""
    plugin = ground.plugin().with_init_script("SELECT 1").with_init_script("SELECT\n1 +")
    with pytest.raises(CleanroomError, match="init script 2, line 2: syntax error"):
        plugin.start()
    assert left_over() == []
