"""What a test wrote is undone in place where that is exact; a fresh clone is made where not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from cleanroom import ServiceHandle
from cleanroom_plugin_postgres import PostgresPlugin, _undo, _wal
from cleanroom_plugin_postgres._database import as_template
from cleanroom_plugin_postgres._databases import (
    admin_connection,
    clone,
    drop,
    quote,
    run_all,
    seal,
)
from cleanroom_plugin_postgres._isolation import replaced, with_database
from cleanroom_plugin_postgres._put_back import PutBack
from cleanroom_plugin_postgres._wal import WriteLog
from tests.database_snapshot import Snapshot, differences, snapshot
from tests.grounds import Ground, find_ground

TEMPLATE = r"""
CREATE TABLE people (id serial PRIMARY KEY, name text UNIQUE);
INSERT INTO people (name) VALUES ('Ada'), ('Kay');
CREATE TABLE notes (id int GENERATED ALWAYS AS IDENTITY, text text);
CREATE TABLE papers (id int PRIMARY KEY, text text);
INSERT INTO papers SELECT g, (SELECT string_agg(md5(g::text || i), '')
                              FROM generate_series(1, 500) i) FROM generate_series(1, 3) g;
CREATE TABLE computed (id int, double int GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO computed VALUES (1);
CREATE TABLE log (what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO public.log VALUES (TG_OP); RETURN NULL; END$$;
CREATE TABLE watched (id int);
CREATE TRIGGER watched AFTER DELETE ON watched FOR EACH ROW EXECUTE FUNCTION note();
CREATE TABLE replicated (id int);
CREATE TRIGGER replicated AFTER DELETE ON replicated FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE replicated ENABLE REPLICA TRIGGER replicated;
CREATE SEQUENCE unused START 5;
CREATE SEQUENCE cached CACHE 10;
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE SCHEMA "odd";
CREATE TABLE "odd"."it's ""odd"" \ % é" ("col %s" int, "é" text);
INSERT INTO "odd"."it's ""odd"" \ % é" VALUES (1, '\ %');
CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM people;
"""
ODD = '"odd"."it\'s ""odd"" \\ % é"'


class Isolated:
    """A server, leases of databases of one template, and what a fresh clone of that is."""

    def __init__(self, plugin: PostgresPlugin, handle: ServiceHandle) -> None:
        self.plugin = plugin
        self.handle = handle
        with admin_connection(handle.metadata) as admin:
            clone(admin, handle.require("template"), "fresh")
            self.expected: Snapshot = snapshot(with_database(handle, "fresh").url)
            drop(admin, "fresh")
        for _ in range(2):  # what is in the template is learned from the first clean clone
            self.after()

    def after(self, *statements: str) -> list[str]:
        """Run statements in a lease. Returns why the next one's database was a new one."""
        before = dict(replaced(self.handle))
        with self.plugin.isolate(self.handle) as isolated, connect(isolated) as connection:
            for statement in statements:
                connection.execute(statement.encode())
        with self.plugin.isolate(self.handle) as isolated:
            found = differences(self.expected, snapshot(isolated.url))
        assert not found, "\n".join(found)
        return [
            reason
            for reason, each in replaced(self.handle).items()
            if reason not in before or each.count > before[reason].count
        ]


def connect(isolated: ServiceHandle) -> psycopg.Connection[Any]:
    return psycopg.connect(isolated.url, autocommit=True)


@pytest.fixture(scope="module", params=["embedded", "installed"])
def isolated_server(request: pytest.FixtureRequest) -> Iterator[Isolated]:
    ground = find_ground(request.param, request)
    plugin = ground.plugin().with_init_script(TEMPLATE)
    plugin = plugin.with_setting("max_prepared_transactions", 8).with_setting(
        "wal_level", "logical"
    )
    handle = plugin.start()
    with admin_connection(handle.metadata) as admin:
        admin.execute("CREATE ROLE app")
    yield Isolated(plugin, handle)
    plugin.stop(handle)


@pytest.mark.parametrize(
    "statements",
    [
        ["SELECT * FROM people"],
        ["SELECT * FROM people FOR UPDATE"],
        ["BEGIN", "INSERT INTO people (name) VALUES ('Tim')", "ROLLBACK"],
        ["BEGIN", "CREATE TABLE made (id serial)", "INSERT INTO made DEFAULT VALUES", "ROLLBACK"],
        ["BEGIN", "TRUNCATE people", "INSERT INTO people VALUES (7, 'Tim')", "ROLLBACK"],
        ["INSERT INTO people (name) VALUES ('Tim')"],
        ["INSERT INTO people (name) VALUES ('Ada') ON CONFLICT (name) DO NOTHING"],
        ["INSERT INTO people (name) VALUES ('Ada') ON CONFLICT (name) DO UPDATE SET name = 'Eve'"],
        ["INSERT INTO people (name) VALUES ('Tim')", "DELETE FROM people WHERE name = 'Tim'"],
        ["BEGIN", "SAVEPOINT a", "DELETE FROM people", "ROLLBACK TO a",
         "INSERT INTO people (name) VALUES ('Tim')", "COMMIT"],
        ["BEGIN", "SAVEPOINT a", "DELETE FROM people", "RELEASE a", "COMMIT"],
        ["INSERT INTO notes (text) SELECT 'x' FROM generate_series(1, 500)"],
        ["UPDATE people SET name = name || '!'"],
        ["UPDATE papers SET text = text || '!' WHERE id = 1"],
        ["UPDATE papers SET id = id + 10"],
        ["DELETE FROM papers"],
        ["INSERT INTO computed VALUES (9)"],
        ["INSERT INTO watched VALUES (1)", "DELETE FROM watched"],
        [f"UPDATE {ODD} SET \"é\" = 'x'"],
        [f"INSERT INTO {ODD} VALUES (2)"],
        ["SELECT nextval('unused')"],
        ["SELECT setval('unused', 9, false)"],
        ["SELECT nextval('people_id_seq') FROM generate_series(1, 100)"],
        ["SELECT lo_from_bytea(0, '\\xff'), lo_from_bytea(0, '\\xfe')"],
        ["SELECT pg_advisory_lock(1)"],
        ["SET search_path = odd", "SET track_activities = off", "LISTEN x", "NOTIFY x"],
        ["SET session_replication_role = replica", "DELETE FROM people"],
        ["CHECKPOINT", "SELECT nextval('unused')", "CHECKPOINT"],
        ["INSERT INTO notes (text) VALUES ('x')", "SELECT pg_switch_wal()",
         "INSERT INTO notes (text) VALUES ('y')", "CHECKPOINT", "CHECKPOINT"],
    ],
    ids="; ".join,
)  # fmt: skip
def test_what_is_undone_in_place(isolated_server: Isolated, statements: list[str]) -> None:
    """Rows, sequences and large objects are put back, and no new database is needed for it."""
    assert isolated_server.after(*statements) == []


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE made ()"],
        ["CREATE TABLE made (id serial PRIMARY KEY, text text DEFAULT 'x' CHECK (text <> ''))",
         "INSERT INTO made DEFAULT VALUES", "INSERT INTO people (name) VALUES ('Tim')",
         "UPDATE papers SET id = id + 10"],
        ["CREATE TABLE made (id int GENERATED ALWAYS AS IDENTITY)", "ANALYZE made", "VACUUM made"],
        ["CREATE TABLE made AS SELECT * FROM papers", "CREATE INDEX ON made (id)",
         "TRUNCATE made", "COMMENT ON TABLE made IS 'x'", "GRANT SELECT ON made TO app",
         "ALTER TABLE made ADD COLUMN added int DEFAULT 3", "ALTER TABLE made OWNER TO app"],
        ["CREATE UNLOGGED TABLE made AS SELECT * FROM people"],
        ["CREATE TABLE made (n int) PARTITION BY LIST (n)",
         "CREATE TABLE made_1 PARTITION OF made FOR VALUES IN (1)", "INSERT INTO made VALUES (1)"],
        ["CREATE TABLE made (id int PRIMARY KEY, up int REFERENCES made)",
         "CREATE TABLE other (id int REFERENCES made)"],
        ["CREATE VIEW made AS SELECT * FROM people",
         "CREATE MATERIALIZED VIEW other AS SELECT * FROM made", "CREATE INDEX ON other (id)"],
        ["CREATE SEQUENCE made", "SELECT nextval('made')"],
        ["CREATE TABLE \"odd\".\"mad\"\"e %s\" ()"],
        ["CREATE TABLE made ()", "DROP TABLE made"],
        ["CREATE TABLE made (id int)", "BEGIN", "ALTER TABLE people ADD COLUMN x int", "ROLLBACK"],
    ],
    ids="; ".join,
)  # fmt: skip
def test_what_was_made_is_dropped(isolated_server: Isolated, statements: list[str]) -> None:
    """New tables, views and sequences are dropped; connections of services stay open."""
    with isolated_server.plugin.isolate(isolated_server.handle) as isolated:
        pooled = connect(isolated)
    assert isolated_server.after(*statements) == []
    assert pooled.execute("SELECT to_regclass('made')").fetchone() == (None,)
    pooled.close()


@pytest.mark.parametrize(
    "statements",
    [
        ["ALTER TABLE notes RENAME TO renamed"],
        ["ALTER TABLE people ADD COLUMN added int"],
        ["ALTER TABLE notes SET (fillfactor = 50)"],
        ["CREATE INDEX ON notes (id)"],
        ["TRUNCATE people"],
        ["REINDEX TABLE people"],
        ["ANALYZE people"],
        ["VACUUM FREEZE people"],
        ["ALTER SEQUENCE unused OWNED BY made.id"],
        ["ALTER SEQUENCE unused RESTART WITH 9"],
        ["ALTER TABLE notes INHERIT made"],
        ["CREATE RULE made AS ON INSERT TO notes DO ALSO SELECT 1"],
        ["CREATE FUNCTION made() RETURNS int LANGUAGE sql AS 'SELECT 1'"],
        ["CREATE TYPE other AS (a int)"],
        ["CREATE TEMPORARY TABLE other ()"],
        ["COMMENT ON TABLE people IS 'x'"],
        ["DROP TABLE papers"],
        ["DROP MATERIALIZED VIEW counted",
         "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM people"],
    ],
    ids="; ".join,
)  # fmt: skip
def test_what_was_made_beside_a_change(isolated_server: Isolated, statements: list[str]) -> None:
    """Where what was there has changed as well, dropping what was made is not enough."""
    made = "CREATE TABLE made (id serial, text text)"
    assert len(isolated_server.after(made, *statements)) == 1


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        (["CREATE TYPE made AS ENUM ('x')"], "the schema was changed"),
        (["CREATE TEMPORARY TABLE made ()"], "the schema was changed"),
        (["CREATE EXTENSION hstore"], "the schema was changed"),
        (["CREATE PUBLICATION everything FOR ALL TABLES"], "the schema was changed"),
        (["ALTER SEQUENCE unused INCREMENT BY 2"], "the schema was changed"),
        (["COMMENT ON TABLE people IS 'x'"], "the schema was changed"),
        (["GRANT SELECT ON people TO app"], None),
        (["ALTER TYPE mood ADD VALUE 'x'"], None),
        (["REFRESH MATERIALIZED VIEW counted"], None),
        (["VACUUM FULL pg_class"], None),
        (["REINDEX TABLE people"], None),
        (["TRUNCATE people"], "a table was truncated, rewritten or altered"),
        (["ANALYZE people"], "a table was vacuumed or analysed"),
        (["VACUUM people"], "a table was vacuumed or analysed"),
        (["BEGIN", "CREATE INDEX ON notes (id)", "ROLLBACK"], None),
        (["UPDATE computed SET id = 5"],
         "rows of public.computed were changed, which has generated columns or XML"),
        (["INSERT INTO replicated VALUES (1)"],
         "public.replicated has triggers or rules that always fire"),
        (["SELECT nextval('cached')"], "public.cached is cached by sessions"),
        (["COMMENT ON DATABASE {} IS 'x'"], "the database has other comment"),
        (["ALTER DATABASE {} SET work_mem = '5MB'"], "the database has other settings"),
        (["ALTER ROLE app IN DATABASE {} SET work_mem = '5MB'"], "the database has other settings"),
        (["ALTER DATABASE {} IS_TEMPLATE true"],
         "the database has other owner, grants or properties"),
        (["ALTER DATABASE {} OWNER TO app"], "the database has other owner, grants or properties"),
        (["GRANT CREATE ON DATABASE {} TO app"],
         "the database has other owner, grants or properties"),
        (["BEGIN", "INSERT INTO notes (text) VALUES ('x')", "PREPARE TRANSACTION 'p'"],
         "the database has other prepared transactions"),
        (["SELECT pg_create_logical_replication_slot('s', 'pgoutput')"],
         "the database has other replication slots"),
        (["CREATE SUBSCRIPTION s CONNECTION 'dbname=nowhere' PUBLICATION p "
          "WITH (connect = false, slot_name = 'there')"], "the database has other subscriptions"),
    ],
    ids=lambda value: "; ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_is_replaced(
    isolated_server: Isolated, statements: list[str], reason: str | None
) -> None:
    """What cannot be undone exactly is left to a fresh clone, and the reason is told."""
    name = f"{quote(isolated_server.handle.require('database_name') + '_1')}"
    reasons = isolated_server.after(*(each.replace("{}", name) for each in statements))
    assert reasons == [reason] if reason else len(reasons) == 1


@pytest.fixture
def lease(start: Callable[[PostgresPlugin], ServiceHandle], process_ground: Ground) -> Isolated:
    """A server of the test's own."""
    plugin = process_ground.plugin().with_init_script(TEMPLATE)
    return Isolated(plugin, start(plugin))


def test_connections_of_a_service_stay_open(isolated_server: Isolated) -> None:
    """A connection that is idle outlives the undoing of rows, and sees them gone."""
    with isolated_server.plugin.isolate(isolated_server.handle) as isolated:
        pooled = connect(isolated)
        pooled.execute("INSERT INTO notes (text) VALUES ('x')")
        pooled.execute("UPDATE people SET name = 'x' WHERE id = 1")
    with isolated_server.plugin.isolate(isolated_server.handle):
        counts = "SELECT (SELECT count(*) FROM notes), (SELECT name FROM people WHERE id = 1)"
        assert pooled.execute(counts).fetchone() == (0, "Ada")
    pooled.close()


def test_a_test_that_only_reads(isolated_server: Isolated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the log has not moved and nobody is at work, it need not even be read."""
    scans: list[str] = []
    scan = WriteLog.scan

    def counted(log: WriteLog, databases: Any, start: str, **more: Any) -> Any:
        scans.append(start)
        return scan(log, databases, start, **more)

    monkeypatch.setattr(WriteLog, "scan", counted)
    for _ in range(12):
        with (
            isolated_server.plugin.isolate(isolated_server.handle) as isolated,
            connect(isolated) as connection,
        ):
            connection.execute("SELECT count(*) FROM people")
    # The server notes something of its own now and then.
    assert len(scans) < 6


def test_what_is_written_between_tests(isolated_server: Isolated) -> None:
    """What a service writes when no test runs is undone before the next one."""
    with isolated_server.plugin.isolate(isolated_server.handle) as isolated:
        service = connect(isolated)
    for statement in ("INSERT INTO notes (text) VALUES ('x')", "SELECT nextval('unused')"):
        service.execute(statement.encode())
        assert isolated_server.after() == []
    service.close()


@pytest.mark.parametrize(
    "statement",
    [
        "BEGIN; INSERT INTO people (name) VALUES ('Tim')",
        "SELECT pg_advisory_lock(1)",
        "SET track_activities = off; BEGIN; LOCK TABLE people",
        "BEGIN; SELECT * FROM people FOR UPDATE",
    ],
)
def test_what_a_test_left_open_is_ended(isolated_server: Isolated, statement: str) -> None:
    """A transaction or lock left open is gone in the next lease, without a new database."""
    before = dict(replaced(isolated_server.handle))
    with isolated_server.plugin.isolate(isolated_server.handle) as isolated:
        left = connect(isolated)
        left.execute(statement.encode())
    assert isolated_server.after() == []
    assert dict(replaced(isolated_server.handle)) == before
    with pytest.raises(psycopg.OperationalError):
        left.execute("SELECT 1")


def test_a_short_transaction_of_a_service_may_end(isolated_server: Isolated) -> None:
    """A transaction that ends soon by itself is waited for, and what it wrote is undone."""
    with isolated_server.plugin.isolate(isolated_server.handle) as isolated:
        service = connect(isolated)
        runs = threading.Event()

        def work() -> None:
            runs.set()
            service.execute("WITH s AS MATERIALIZED (SELECT pg_sleep(0.1)) "
                            "INSERT INTO notes (text) SELECT 'x' FROM s")  # fmt: skip

        thread = threading.Thread(target=work)
        thread.start()
        assert runs.wait(10)
    assert isolated_server.after() == []
    thread.join()
    assert service.execute("SELECT count(*) FROM notes").fetchone() == (0,)
    service.close()


def test_what_is_written_while_the_log_is_read(
    isolated_server: Isolated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that writes just before the log is read, and ends after, is undone."""
    with isolated_server.plugin.isolate(isolated_server.handle) as isolated:
        service = connect(isolated)
        service.execute("INSERT INTO notes (text) VALUES ('committed')")

    between_state_and_log(
        monkeypatch,
        lambda: service.execute("BEGIN; CREATE TABLE late (); INSERT INTO notes DEFAULT VALUES"),
        lambda: service.execute("COMMIT"),
    )
    with isolated_server.plugin.isolate(isolated_server.handle) as isolated:
        assert differences(isolated_server.expected, snapshot(isolated.url)) == []
    assert service.execute("SELECT to_regclass('late')").fetchone() == (None,)
    service.close()


def test_what_is_changed_before_rows_are_put_back(
    isolated_server: Isolated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of the template that somebody changes then is not taken for one that was added."""
    original = _undo.put_back
    calls = 0

    def put_back(*args: Any, **options: Any) -> PutBack:
        nonlocal calls
        calls += 1
        if calls == 1:
            service.execute("UPDATE people SET name = 'changed' WHERE id = 1")
        return original(*args, **options)

    before = dict(replaced(isolated_server.handle))
    with isolated_server.plugin.isolate(isolated_server.handle) as isolated:
        service = connect(isolated)
        service.execute("INSERT INTO people (name) VALUES ('Tim')")
    monkeypatch.setattr(_undo, "put_back", put_back)
    with isolated_server.plugin.isolate(isolated_server.handle) as isolated:
        assert differences(isolated_server.expected, snapshot(isolated.url)) == []
    assert calls == 2
    assert dict(replaced(isolated_server.handle)) == before
    service.close()


def test_a_transaction_that_is_older_than_the_lease(
    isolated_server: Isolated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a transaction writes is undone also if it began before the lease that it wrote in."""
    with isolated_server.plugin.isolate(isolated_server.handle) as isolated:
        service = connect(isolated)

    between_state_and_log(
        monkeypatch, lambda: service.execute("BEGIN; SELECT pg_current_xact_id()")
    )
    with isolated_server.plugin.isolate(isolated_server.handle):
        service.execute("INSERT INTO people (name) VALUES ('Tim')")
        service.execute("COMMIT")
    assert isolated_server.after() == []
    service.close()


def between_state_and_log(
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[], object],
    then: Callable[[], object] = lambda: None,
) -> None:
    """Do something once, after it was found that nobody is at work and before the log is read.

    Args:
        monkeypatch: To do it with.
        act: What to do.
        then: What to do before it is looked again whether somebody is at work.
    """
    scan = WriteLog.scan
    calls = 0

    def late(self: WriteLog, *args: Any, after: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            then()
        answers = run_all(self._connection, after)
        if calls == 1:
            act()
        found, _ = scan(self, *args, after=(), **options)
        return found, answers

    monkeypatch.setattr(WriteLog, "scan", late)


def test_what_is_written_after_rows_were_put_back(
    isolated_server: Isolated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older and younger transactions than that which put back are undone; what it put is not."""
    original, scan = _undo.put_back, WriteLog.scan
    ends: list[str] = []
    puts: list[PutBack] = []

    def noting(*args: Any, **options: Any) -> Any:
        found, answers = scan(*args, **options)
        ends.append(found.end)
        return found, answers

    def put_back(*args: Any, **options: Any) -> PutBack:
        older.execute("BEGIN; SELECT pg_current_xact_id()")
        # As if the server wrote nothing of its own accord at just this moment.
        puts.append(original(*args, **options)._replace(position=ends[-1]))
        younger.execute("INSERT INTO people (name) VALUES ('younger'), ('youngest')")
        younger.execute("INSERT INTO notes (text) VALUES ('younger')")
        return puts[-1]

    with isolated_server.plugin.isolate(isolated_server.handle) as isolated:
        older, younger = connect(isolated), connect(isolated)
        younger.execute("UPDATE people SET name = name || '!'")
    monkeypatch.setattr(WriteLog, "scan", noting)
    monkeypatch.setattr(_undo, "put_back", put_back)
    with isolated_server.plugin.isolate(isolated_server.handle):
        older.execute("INSERT INTO people (name) VALUES ('older')")
        older.execute("COMMIT")
    assert len(puts) == 1
    monkeypatch.undo()
    assert isolated_server.after() == []
    assert isolated_server.after("INSERT INTO people (name) VALUES ('Tim')") == []
    older.close()
    younger.close()


def test_a_service_that_never_stops_writing(isolated_server: Isolated) -> None:
    """However much is written during leases, the next one without it is clean."""
    stop = threading.Event()
    with isolated_server.plugin.isolate(isolated_server.handle) as isolated:
        url = isolated.url

    def write() -> None:
        while not stop.is_set():
            try:
                with psycopg.connect(url, autocommit=True) as connection:
                    while not stop.is_set():
                        connection.execute("INSERT INTO notes (text) VALUES ('x')")
                        connection.execute("UPDATE people SET name = name || 'x' WHERE id = 1")
            except psycopg.Error:
                continue  # its database is being replaced

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            with isolated_server.plugin.isolate(isolated_server.handle):
                pass
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    isolated_server.after()


def test_our_connections_are_ended_by_a_test(isolated_server: Isolated) -> None:
    """A test that ends all sessions but its own costs no new database, once that is known."""
    end_all = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    isolated_server.after("INSERT INTO notes (text) VALUES ('x')")
    assert isolated_server.after("INSERT INTO notes (text) VALUES ('x')", end_all) == []
    everywhere = end_all.replace("datname = current_database()", "backend_type = 'client backend'")
    isolated_server.after("INSERT INTO notes (text) VALUES ('x')", everywhere)


def test_an_undo_is_interrupted(isolated_server: Isolated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of undoing leaves no half of it in the next lease."""
    leased = isolated_server.plugin.isolate(isolated_server.handle)
    with leased as isolated, connect(isolated) as connection:
        connection.execute("UPDATE people SET name = name || 'x'")

    def interrupt(*arguments: Any) -> Any:
        run_all(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cleanroom_plugin_postgres._put_back.run_all", interrupt)
        with pytest.raises(KeyboardInterrupt):
            isolated_server.plugin.isolate(isolated_server.handle).__enter__()
    with admin_connection(isolated_server.handle.metadata) as admin:
        at_work = "SELECT query FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
        assert admin.execute(at_work).fetchall() == []
    isolated_server.after()


def test_two_templates_with_the_same_tables(lease: Isolated) -> None:
    """Rows that were changed are put back as their own template has them, not as another has."""
    with admin_connection(lease.handle.metadata) as admin:
        clone(admin, lease.handle.require("template"), "second")
        with connect(with_database(lease.handle, "second")) as connection:
            connection.execute("UPDATE people SET name = name || ' the second'")
            connection.execute("UPDATE papers SET text = 'the second'")
        seal(admin, "second")
    second = as_template(lease.handle, "second")
    for handle in (lease.handle, second):
        for table in ("people", "papers"):
            use(lease, handle, f"UPDATE {table} SET id = id + 10")
    for handle in (lease.handle, lease.handle, second, second):
        with lease.plugin.isolate(handle) as isolated, connect(isolated) as connection:
            names = connection.execute("SELECT name FROM people ORDER BY id").fetchall()
            texts = connection.execute("SELECT max(length(text)) FROM papers").fetchall()
            connection.execute("UPDATE papers SET id = id + 10")
        is_first = handle is lease.handle
        added = "" if is_first else " the second"
        assert names == [(f"Ada{added}",), (f"Kay{added}",)]
        assert texts == [(16000 if is_first else 10,)]


def use(isolated: Isolated, handle: ServiceHandle, statement: str) -> None:
    with isolated.plugin.isolate(handle) as leased, connect(leased) as connection:
        connection.execute(statement.encode())


def test_a_template_that_is_written_to(
    start: Callable[[PostgresPlugin], ServiceHandle], process_ground: Ground
) -> None:
    """What is written to `template1` is in the next lease, as it is in a fresh clone."""
    plugin = process_ground.plugin()
    handle = start(plugin)
    for number in range(3):
        with plugin.isolate(handle):
            pass
        with connect(with_database(handle, "template1")) as connection:
            connection.execute(f"CREATE TABLE made_{number} AS SELECT 1 AS n".encode())
        with plugin.isolate(handle) as isolated, connect(isolated) as connection:
            for made in range(number + 1):
                query = f"SELECT n FROM made_{made}".encode()
                assert connection.execute(query).fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("added", "statement", "reason"),
    [
        ("CREATE UNLOGGED TABLE fast (id int)", "INSERT INTO fast VALUES (1)",
         "the template has unlogged tables"),
        ("SELECT lo_from_bytea(0, '\\xff')", "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
         "large objects were changed, and the template has some"),
        ("SELECT lo_from_bytea(0, '\\xff')", "INSERT INTO notes (text) VALUES ('x')", None),
        ("ALTER DATABASE testdb SET default_transaction_read_only = on",
         "SET transaction_read_only = off; INSERT INTO notes (text) VALUES ('x')", None),
        ("ALTER DATABASE testdb SET search_path = odd; ALTER DATABASE testdb SET statement_timeout "
         "= 1000; ALTER DATABASE testdb SET standard_conforming_strings = off",
         "UPDATE public.people SET name = name || 'x'", None),
        ("CREATE ROLE reader; ALTER DATABASE testdb SET role = reader",
         "RESET ROLE; SET ROLE NONE; UPDATE public.people SET name = name || 'x'", None),
        ("CREATE TABLE bulky AS SELECT g AS id, repeat('x', 1000) AS text "
         "FROM generate_series(1, 3000) g", "UPDATE bulky SET id = 0 WHERE id = 1",
         "rows of public.bulky were changed, and it is large"),
        ("CREATE TABLE bulky AS SELECT g AS id, repeat('x', 1000) AS text "
         "FROM generate_series(1, 3000) g", "INSERT INTO bulky VALUES (0)", None),
        ("CREATE FUNCTION tell() RETURNS event_trigger LANGUAGE plpgsql AS "
         "$$BEGIN INSERT INTO public.log VALUES ('dropped'); END$$;"
         "CREATE EVENT TRIGGER tell ON sql_drop EXECUTE FUNCTION tell()",
         "CREATE TABLE made ()", None),
        ("CREATE FUNCTION tell() RETURNS event_trigger LANGUAGE plpgsql AS "
         "$$BEGIN INSERT INTO public.log VALUES ('dropped'); END$$;"
         "CREATE EVENT TRIGGER tell ON sql_drop EXECUTE FUNCTION tell();"
         "ALTER EVENT TRIGGER tell ENABLE ALWAYS",
         "CREATE TABLE made ()", "the schema was changed"),
    ],
)  # fmt: skip
def test_templates_with_something_special(
    start: Callable[[PostgresPlugin], ServiceHandle],
    process_ground: Ground,
    added: str,
    statement: str,
    reason: str | None,
) -> None:
    """Leases are clean whatever the template has, in place where that can be exact."""
    plugin = process_ground.plugin().with_init_script(TEMPLATE).with_init_script(added)
    isolated = Isolated(plugin, start(plugin))
    assert isolated.after(statement) == ([reason] if reason else [])


def test_unlogged_tables_from_the_first_lease_on(
    start: Callable[[PostgresPlugin], ServiceHandle], process_ground: Ground
) -> None:
    """What only an unlogged table was told is gone in the second lease, too."""
    plugin = process_ground.plugin().with_init_script("CREATE UNLOGGED TABLE fast (id int)")
    handle = start(plugin)
    for _ in range(3):
        with plugin.isolate(handle) as isolated, connect(isolated) as connection:
            assert connection.execute("SELECT count(*) FROM fast").fetchone() == (0,)
            connection.execute("INSERT INTO fast VALUES (1)")


def test_a_login_trigger_that_writes(
    start: Callable[[PostgresPlugin], ServiceHandle], request: pytest.FixtureRequest
) -> None:
    """What a trigger writes when a connection is opened, ours included, is undone."""
    plugin = (
        find_ground("embedded", request)
        .plugin()
        .with_init_script(TEMPLATE)
        .with_init_script(
            "INSERT INTO log VALUES ('before');"
            "CREATE FUNCTION greet() RETURNS event_trigger LANGUAGE plpgsql AS "
            "$$BEGIN INSERT INTO public.log VALUES ('login'); END$$;"
            "CREATE EVENT TRIGGER greet ON login EXECUTE FUNCTION greet();"
        )
    )
    handle = start(plugin)
    for _ in range(4):
        with plugin.isolate(handle) as isolated, connect(isolated) as connection:
            assert connection.execute("SELECT count(*) FROM log").fetchone() == (2,)
            connection.execute("DELETE FROM log")


def test_xml_is_left_to_a_fresh_clone(
    start: Callable[[PostgresPlugin], ServiceHandle], request: pytest.FixtureRequest
) -> None:
    """XML loses its declaration when it is copied, so that a table with some is not put back."""
    ground = find_ground("installed", request)
    plugin = ground.plugin().with_init_script(
        TEMPLATE + "CREATE TABLE pages (id int, page xml);"
        "INSERT INTO pages VALUES (1, '<?xml version=\"1.0\"?><a/>')"
    )
    isolated = Isolated(plugin, start(plugin))
    assert len(isolated.after("UPDATE pages SET id = 2")) == 1


def test_dead_rows(isolated_server: Isolated, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that grew with dead rows is replaced, rolled-back ones included."""
    monkeypatch.setattr("cleanroom_plugin_postgres._undo._MEASURED_EVERY", 200_000)
    monkeypatch.setattr("cleanroom_plugin_postgres._undo._BLOAT", 100_000)
    many = "INSERT INTO notes (text) SELECT repeat('x', 100) FROM generate_series(1, 3000)"
    assert isolated_server.after("BEGIN", many, "ROLLBACK") == ["it is full of dead rows"]
    assert isolated_server.after(many) == ["it is full of dead rows"]
    assert isolated_server.after("INSERT INTO notes (text) VALUES ('x')") == []


def test_more_was_written_than_is_worth_reading(isolated_server: Isolated) -> None:
    """Where reading the log would take longer than a clone, a clone is made."""
    many = "INSERT INTO notes (text) SELECT repeat('x', 1000) FROM generate_series(1, 3000)"
    assert isolated_server.after(many) == ["much was written to the server"]


def test_the_log_is_gone(isolated_server: Isolated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server has thrown away the log since the last lease, a clone is made."""
    monkeypatch.setattr("cleanroom_plugin_postgres._wal._LONGEST", 1 << 40)
    switch = "SELECT pg_switch_wal(), pg_logical_emit_message(false, '', '')"
    gone = isolated_server.after("CREATE TABLE made ()", *[switch, "CHECKPOINT"] * 8)
    assert len(gone) == 1


def test_a_log_in_other_words(
    start: Callable[[PostgresPlugin], ServiceHandle],
    process_ground: Ground,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a write cannot be found in what the server says of its log, nothing is undone."""
    words = _wal._SCAN.replace("split_part(block_ref, ' ', 4)", "split_part(block_ref, ' ', 5)")
    monkeypatch.setattr(_wal, "_SCAN", words)
    plugin = process_ground.plugin().with_init_script(TEMPLATE)
    isolated = Isolated(plugin, start(plugin))
    isolated.after("INSERT INTO notes (text) VALUES ('x')")
    assert set(replaced(isolated.handle)) == {"this server cannot tell what was written"}


def test_what_replacing_costs_is_told(lease: Isolated) -> None:
    """For each reason it is told how often databases were replaced, and how long that took."""
    for _ in range(2):
        lease.after("CREATE SCHEMA made")
    told = replaced(lease.handle)["the schema was changed"]
    assert told.count == 2
    assert 0 < told.seconds < 60
