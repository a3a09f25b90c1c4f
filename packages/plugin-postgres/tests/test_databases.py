"""Making, cloning, renaming and dropping databases, whatever was done to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from cleanroom import ServiceHandle
from cleanroom_plugin_postgres._databases import (
    admin_connection,
    clone,
    drop,
    literal,
    quote,
    rename,
    run,
    seal,
    unseal,
)
from cleanroom_plugin_postgres._isolation import with_database
from tests.grounds import Server, find_ground

ODD_NAMES = ["plain", 'with "quotes"', "it's", "% %s", "back\\slash", "é", "select"]


@pytest.fixture(scope="module", params=["embedded", "installed"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    plugin = find_ground(request.param, request).plugin()
    plugin = plugin.with_setting("max_prepared_transactions", 4).with_setting(
        "wal_level", "logical"
    )
    handle = plugin.start()
    with admin_connection(handle.metadata) as admin:
        admin.execute("CREATE ROLE app")
    yield Server(plugin, handle)
    plugin.stop(handle)


@pytest.fixture
def admin(server: Server) -> Iterator[psycopg.Connection[Any]]:
    with admin_connection(server.handle.metadata) as connection:
        yield connection


def names(admin: psycopg.Connection[Any]) -> set[str]:
    return {str(row[0]) for row in admin.execute("SELECT datname FROM pg_database").fetchall()}


def connect(server: Server, name: str, **options: Any) -> psycopg.Connection[Any]:
    handle: ServiceHandle = with_database(server.handle, name)
    return psycopg.connect(handle.url, autocommit=True, **options)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(server: Server, admin: psycopg.Connection[Any], name: str) -> None:
    """A database of any name is cloned, renamed, found by its URL, and dropped."""
    clone(admin, "template1", name)
    clone(admin, name, name + " 2")
    rename(admin, name + " 2", name + " 3")
    for each in (name, name + " 3"):
        with connect(server, each) as connection:
            assert connection.info.dbname == each
        drop(admin, each)
    assert not names(admin) & {name, name + " 2", name + " 3"}


@pytest.mark.parametrize("text", ODD_NAMES)
def test_literals(admin: psycopg.Connection[Any], text: str) -> None:
    """The server reads a literal as the very text, and a quoted name as the very name."""
    row = admin.execute(f"SELECT {literal(text)} AS {quote(text)}".encode())
    assert row.description is not None
    assert row.description[0].name == text
    assert row.fetchone() == (text,)


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE t ()", "BEGIN", "DROP TABLE t", "PREPARE TRANSACTION 'it''s one'"],
        ["ALTER DATABASE doomed IS_TEMPLATE true"],
        ["CREATE SUBSCRIPTION \"a sub\" CONNECTION 'dbname=nowhere' PUBLICATION p "
         "WITH (connect = false, slot_name = 'there')"],
        ["SELECT pg_create_logical_replication_slot('left', 'pgoutput')"],
        ["ALTER DATABASE doomed SET default_transaction_read_only = on",
         "CREATE SUBSCRIPTION s CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false)"],
        ["SELECT pg_advisory_lock(1)", "BEGIN", "CREATE TABLE t ()"],
    ],
)  # fmt: skip
def test_what_keeps_a_database_from_being_dropped(
    server: Server, admin: psycopg.Connection[Any], statements: list[str]
) -> None:
    """Prepared transactions, subscriptions, slots and open sessions go with their database."""
    clone(admin, "template1", "doomed")
    connection = connect(server, "doomed")
    for statement in statements:
        connection.execute(statement.encode())
    drop(admin, "doomed")
    assert "doomed" not in names(admin)
    assert admin.execute("SELECT gid FROM pg_prepared_xacts").fetchall() == []
    assert admin.execute("SELECT slot_name FROM pg_replication_slots").fetchall() == []
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()


def test_a_replication_slot_that_is_in_use(server: Server, admin: psycopg.Connection[Any]) -> None:
    """A database that somebody is replicating from is dropped all the same."""
    clone(admin, "template1", "doomed")
    with connect(server, "doomed") as connection:
        connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        connection.execute("SELECT pg_create_logical_replication_slot('used', 'pgoutput')")
    replica = connect(server, "doomed", replication="database")
    replica.pgconn.send_query(
        b"START_REPLICATION SLOT used LOGICAL 0/0 "
        b"(proto_version '1', publication_names 'everything')"
    )
    answer = replica.pgconn.get_result()
    assert answer is not None
    assert answer.status == psycopg.pq.ExecStatus.COPY_BOTH
    active = "SELECT active FROM pg_replication_slots WHERE slot_name = 'used'"
    assert admin.execute(active).fetchone() == (True,)
    drop(admin, "doomed")
    assert "doomed" not in names(admin)
    assert admin.execute(active).fetchone() is None
    replica.pgconn.finish()


def test_a_database_in_use_is_renamed(server: Server, admin: psycopg.Connection[Any]) -> None:
    """A database gets another name though somebody is connected, and can be connected to again."""
    clone(admin, "template1", "before")
    connection = connect(server, "before")
    connection.execute("CREATE TABLE made ()")
    connection.execute("BEGIN; INSERT INTO made DEFAULT VALUES; PREPARE TRANSACTION 'p'")
    rename(admin, "before", "after")
    with connect(server, "after") as again:
        assert again.execute("SELECT count(*) FROM made").fetchone() == (0,)
    connection.close()
    drop(admin, "after")


def test_a_clone_is_like_its_source(server: Server, admin: psycopg.Connection[Any]) -> None:
    """A clone has its source's owner, grants, settings of every kind, and connection limit."""
    clone(admin, "template1", "source")
    run(admin, "ALTER DATABASE source OWNER TO app")
    for statement in (
        "REVOKE ALL ON DATABASE source FROM PUBLIC, app",
        "GRANT CONNECT ON DATABASE source TO app WITH GRANT OPTION",
        "GRANT TEMPORARY ON DATABASE source TO pg_monitor",
        "ALTER DATABASE source CONNECTION LIMIT 7",
        'ALTER DATABASE source SET search_path = public, "o\'dd", pg_catalog',
        "ALTER DATABASE source SET temp_tablespaces = ''",
        "ALTER DATABASE source SET \"my.own\" = 'it''s a \\ %'",
        "ALTER ROLE app IN DATABASE source SET work_mem = '5MB'",
        "ALTER ROLE app IN DATABASE source SET search_path = ''",
        "ALTER ROLE ALL IN DATABASE source SET statement_timeout = '1h'",
    ):
        run(admin, statement)
    clone(admin, "source", "target")
    query = (
        "SELECT to_jsonb(d) - '{oid,datname,datfrozenxid,datminmxid}'::text[], "
        "(SELECT jsonb_object_agg(setrole, setconfig) FROM pg_db_role_setting "
        " WHERE setdatabase = d.oid) FROM pg_database AS d WHERE datname = %s"
    )
    source, target = (admin.execute(query, [name]).fetchone() for name in ("source", "target"))
    assert source == target
    assert source is not None
    assert len(source[1]) == 2
    drop(admin, "source")
    drop(admin, "target")


def test_a_template_is_closed(server: Server, admin: psycopg.Connection[Any]) -> None:
    """Nobody connects to a sealed template or drops it by mistake until it is opened again."""
    clone(admin, "template1", "mould")
    left = connect(server, "mould")
    seal(admin, "mould")
    with pytest.raises(psycopg.OperationalError):
        left.execute("SELECT 1")
    left.close()
    with pytest.raises(psycopg.OperationalError):
        connect(server, "mould")
    with pytest.raises(psycopg.errors.WrongObjectType):
        run(admin, "DROP DATABASE mould")
    unseal(admin, "mould")
    connect(server, "mould").close()
    drop(admin, "mould")
