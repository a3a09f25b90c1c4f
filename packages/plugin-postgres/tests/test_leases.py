"""Leases of databases: their names, who leases them, and what no lease can keep to itself."""

from __future__ import annotations

import multiprocessing
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from cleanroom import ServiceError, ServiceHandle
from cleanroom_plugin_postgres import NotIsolatedWarning, PostgresPlugin
from cleanroom_plugin_postgres._database import Database, as_template
from cleanroom_plugin_postgres._databases import admin_connection, clone, seal
from cleanroom_plugin_postgres._isolation import close, keep, replaced
from tests.grounds import Ground, Server, find_ground

TEMPLATE = "CREATE TABLE people (name text); INSERT INTO people VALUES ('Ada')"


@pytest.fixture(scope="module", params=["embedded", "installed"])
def own(request: pytest.FixtureRequest) -> Iterator[Server]:
    ground = find_ground(request.param, request)
    plugin = ground.plugin(database_name="odd-$name").with_init_script(TEMPLATE)
    handle = plugin.start()
    yield Server(plugin, handle)
    plugin.stop(handle)


def connect(isolated: ServiceHandle) -> psycopg.Connection[Any]:
    return psycopg.connect(isolated.url, autocommit=True)


def run(server: Server, *statements: str) -> None:
    """Run statements in a lease."""
    with server.plugin.isolate(server.handle) as isolated, connect(isolated) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.mark.parametrize(
    ("statements", "named", "undo"),
    [
        (["CREATE ROLE \"a role\""], 'role "a role" (added)', 'DROP ROLE "a role"'),
        (["ALTER ROLE there PASSWORD 'x'"], "role there (changed)", "SELECT"),
        (["ALTER ROLE there SET work_mem = '5MB'"], "settings of role there (added)",
         "ALTER ROLE there RESET ALL"),
        (["GRANT pg_monitor TO there"], "membership of there in pg_monitor (added)",
         "REVOKE pg_monitor FROM there"),
        (["ALTER SYSTEM SET work_mem = '5MB'"], "settings made by ALTER SYSTEM (changed)",
         "ALTER SYSTEM RESET ALL"),
        (["GRANT SET ON PARAMETER log_statement TO there"],
         "grants on setting log_statement (added)",
         "REVOKE SET ON PARAMETER log_statement FROM there"),
        (["SET allow_in_place_tablespaces = on", "CREATE TABLESPACE other LOCATION ''"],
         "tablespace other (added)", "DROP TABLESPACE other"),
    ],
)  # fmt: skip
def test_what_all_databases_share_is_told(
    own: Server, statements: list[str], named: str, undo: str
) -> None:
    """A test that changes roles, settings or tablespaces of the server is told what it changed."""
    with admin_connection(own.handle.metadata) as admin:
        admin.execute("DROP ROLE IF EXISTS there")
        admin.execute("CREATE ROLE there")
    with pytest.warns(NotIsolatedWarning) as told:
        run(own, *statements)
    assert named in str(told[0].message)
    assert "odd-$name" not in str(told[0].message)
    with admin_connection(own.handle.metadata) as admin:
        admin.execute(undo.encode())
        admin.execute("DROP ROLE there")


def test_what_was_put_right_again_is_not_told(own: Server) -> None:
    """A role that is made and dropped in one test, or made between two, is no one's fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(own, "CREATE ROLE passing", "DROP ROLE passing")
        with admin_connection(own.handle.metadata) as admin:
            admin.execute("CREATE ROLE between_leases")
        run(own, "ALTER DATABASE \"odd-$name_1\" SET work_mem = '5MB'", "CREATE TABLE made ()")
        run(own)


def test_a_warning_that_is_an_error_leaves_the_database_free(own: Server) -> None:
    """Where warnings are errors, the test that made a role fails, and the next one is as ever."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NotIsolatedWarning, match="role raised"):
            run(own, "CREATE ROLE raised")
    with own.plugin.isolate(own.handle) as isolated:
        assert isolated.require("database_name") == "odd-$name_1"


def test_the_name_stays_the_same(own: Server) -> None:
    """A lease has the first name whenever it is free, whatever was leased beside it before."""
    with admin_connection(own.handle.metadata) as admin:
        clone(admin, own.handle.require("template"), "second")
        seal(admin, "second")
    second = as_template(own.handle, "second")
    with own.plugin.isolate(own.handle) as first, own.plugin.isolate(second) as beside:
        assert beside.url != first.url
    for handle in (second, own.handle):
        with own.plugin.isolate(handle) as isolated:
            assert isolated.url == first.url


def test_threads_lease_at_once(own: Server) -> None:
    """Threads that lease at the same time have databases of their own, each of them clean."""
    together = threading.Barrier(4)

    def work(number: int) -> list[str]:
        names: list[str] = []
        for _ in range(3):
            together.wait(60)
            with own.plugin.isolate(own.handle) as isolated, connect(isolated) as connection:
                found = connection.execute("SELECT name FROM people").fetchall()
                assert found == [("Ada",)]
                connection.execute("INSERT INTO people VALUES (%s)", [str(number)])
                names.append(isolated.require("database_name"))
                together.wait(60)
        return names

    with ThreadPoolExecutor(4) as threads:
        names = list(threads.map(work, range(4)))
    for lease in zip(*names, strict=True):
        assert len(set(lease)) == 4


def test_a_fork_leases_its_own(own: Server) -> None:
    """A forked process has another database than its parent, whose connections it leaves alone."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def child() -> None:
        with own.plugin.isolate(own.handle) as isolated, connect(isolated) as connection:
            connection.execute("INSERT INTO people VALUES ('child')")
            answers.put(isolated.require("database_name"))
        close(own.handle)

    with own.plugin.isolate(own.handle) as isolated, connect(isolated) as connection:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking among threads
            process = context.Process(target=child)
            process.start()
        assert answers.get(timeout=60) != isolated.require("database_name")
        process.join(60)
        assert process.exitcode == 0
        assert connection.execute("SELECT name FROM people").fetchall() == [("Ada",)]
    before = replaced(own.handle)
    run(own)
    assert replaced(own.handle) == before


def test_what_is_kept_stays_as_it_is(own: Server) -> None:
    """A database that is kept has what the test left, under a name that is never leased again."""
    with own.plugin.isolate(own.handle) as isolated:
        left = connect(isolated)
        left.execute("INSERT INTO people VALUES ('kept')")
        kept = keep(own.handle, isolated.require("database_name"))
    with own.plugin.isolate(own.handle) as again:
        assert again.url == isolated.url
        with connect(again) as connection:
            assert connection.execute("SELECT name FROM people").fetchall() == [("Ada",)]
    with connect(kept) as connection:
        assert connection.execute("SELECT count(*) FROM people").fetchone() == (2,)
    left.close()


MANY_KINDS = """
    CREATE TABLE parent (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "odd name" text);
    CREATE TABLE words (loud text GENERATED ALWAYS AS (upper(word)) STORED, word text);
    CREATE TABLE child (id serial, parent int REFERENCES parent);
    CREATE TABLE nothing ();
    CREATE TABLE parts (id int) PARTITION BY RANGE (id);
    CREATE TABLE part PARTITION OF parts FOR VALUES FROM (1) TO (100);
    CREATE VIEW seen AS SELECT * FROM parent;
    CREATE MATERIALIZED VIEW known AS SELECT 1 AS one;
    INSERT INTO parent ("odd name") VALUES ('first'), ('second');
    INSERT INTO child (parent) VALUES (1)
"""
LEFT = """
    DELETE FROM child; DELETE FROM parent WHERE id = 1; UPDATE parent SET "odd name" = 'changed';
    INSERT INTO parent ("odd name") VALUES ('third'); INSERT INTO child (parent) VALUES (2);
    INSERT INTO nothing DEFAULT VALUES; INSERT INTO parts VALUES (7);
    INSERT INTO words (word) VALUES ('said')
"""
CONTENT = (
    "SELECT * FROM parent ORDER BY id", "SELECT * FROM child", "SELECT count(*) FROM nothing",
    "SELECT * FROM part", "SELECT * FROM known", "SELECT * FROM words",
    "SELECT nextval('child_id_seq')",
)  # fmt: skip


@pytest.mark.parametrize(
    ("more", "stays"),
    [
        ("SELECT 1", True),
        ("CREATE TABLE more ()", False),
        ("CREATE VIEW more AS SELECT 1", False),
        ("SELECT lo_create(0)", False),
    ],
    ids=["rows", "a table", "a view", "large objects"],
)
def test_keeping_what_can_be_undone_leaves_connections_open(
    start: Callable[[PostgresPlugin], ServiceHandle], more: str, stays: bool
) -> None:
    """What is kept is all that the test left; others stay connected if it is undone in place."""
    plugin = PostgresPlugin("kinds", backend="process").with_init_script(MANY_KINDS)
    handle = start(plugin)
    run(Server(plugin, handle))
    with plugin.isolate(handle) as isolated:
        pool = connect(isolated)
        pool.execute(LEFT)
        pool.execute(more.encode())
        kept = keep(handle, isolated.require("database_name"))
    with plugin.isolate(handle):
        if stays:
            row = pool.execute("SELECT count(*), min(id), max(id) FROM parent").fetchone()
            assert row == (2, 1, 2)
        else:
            with pytest.raises(psycopg.OperationalError):
                pool.execute("SELECT 1")
        pool.close()
    with connect(kept) as connection:
        found = [connection.execute(query.encode()).fetchall() for query in CONTENT]
    assert found == [
        [(2, "changed"), (3, "third")],
        [(2, 2)], [(1,)], [(7,)], [(1,)], [("SAID", "said")], [(3,)],
    ]  # fmt: skip


def test_a_user_who_is_no_superuser(
    start: Callable[[PostgresPlugin], ServiceHandle], own: Server
) -> None:
    """In a server where the log cannot be read every lease has a new database, and says why."""
    with admin_connection(own.handle.metadata) as admin:
        admin.execute("DROP ROLE IF EXISTS maker")
        admin.execute("CREATE ROLE maker LOGIN CREATEDB CREATEROLE PASSWORD 'secret'")
    url = f"postgresql://maker:secret@127.0.0.1:{own.handle.port}/postgres"
    plugin = PostgresPlugin("elsewhere", url=url, backend="external")
    server = Server(plugin, start(plugin))
    for _ in range(3):
        with plugin.isolate(server.handle) as isolated, connect(isolated) as connection:
            connection.execute("CREATE TABLE made ()")
    assert [(why, each.count) for why, each in replaced(server.handle).items()] == [
        ("this server cannot tell what was written", 2)
    ]
    with pytest.warns(NotIsolatedWarning, match="role made_there"):
        run(server, "CREATE ROLE made_there")


def test_a_lease_outlives_its_service(process_ground: Ground) -> None:
    """A lease that ends after the service was stopped ends in peace."""
    plugin = process_ground.plugin()
    handle = plugin.start()
    with plugin.isolate(handle):
        plugin.stop(handle)


def test_lease_of_a_server_that_is_gone(process_ground: Ground) -> None:
    """Whoever asks the plugin itself is told which service it is, and that it has ended."""
    plugin = process_ground.plugin("db")
    handle = plugin.start()
    plugin.kill(handle)
    with (
        pytest.raises(ServiceError, match="it stopped working during the session") as caught,
        plugin.isolate(handle),
    ):
        pass
    assert caught.value.service == "db"
    plugin.stop(handle)


def test_what_is_connected_for_a_test_goes_by_the_socket(own: Server) -> None:
    """It is the database that the URL leads to, for clients that know nothing of sockets."""
    with own.plugin.isolate(own.handle) as isolated:
        database = Database(isolated)
        with database.connect() as by_socket, psycopg.connect(database.url) as by_port:
            assert by_socket.info.host == isolated.metadata["socket_directory"]
            assert by_port.info.host == "127.0.0.1"
            who = "SELECT current_database(), current_user, pg_postmaster_start_time()"
            assert by_socket.execute(who).fetchone() == by_port.execute(who).fetchone()
        database.run_script("CREATE TABLE seen ()")
        with psycopg.connect(database.url) as by_port:
            by_port.execute("SELECT FROM seen")


def test_no_socket_is_named_for_a_container(postgres_image: str) -> None:
    """One that is inside it is not reached from here."""
    plugin = PostgresPlugin("boxed", postgres_image, backend="container")
    handle = plugin.start()
    try:
        assert "socket_directory" not in handle.metadata
        with plugin.isolate(handle) as isolated, Database(isolated).connect() as connection:
            assert connection.info.host == handle.host
    finally:
        plugin.stop(handle)
