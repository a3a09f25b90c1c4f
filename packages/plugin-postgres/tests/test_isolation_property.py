"""Whatever one test does to its database, the next one's is as a fresh clone of the template.

Random programs are run in one lease after the other. Seeds are printed; to run others or more:
`CLEANROOM_PROPERTY_SEED=7 CLEANROOM_PROPERTY_LEASES=2000`.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from cleanroom import ServiceHandle
from cleanroom_plugin_postgres import PostgresPlugin
from cleanroom_plugin_postgres._databases import admin_connection, clone, drop
from cleanroom_plugin_postgres._isolation import replaced, with_database
from tests.database_snapshot import Snapshot, differences, snapshot
from tests.grounds import Ground

SEED = int(os.environ.get("CLEANROOM_PROPERTY_SEED", "1"))
LEASES = int(os.environ.get("CLEANROOM_PROPERTY_LEASES", "25"))
SECONDS = 60.0 if "CLEANROOM_PROPERTY_LEASES" not in os.environ else 24 * 3600.0

TEMPLATE = r"""
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN short AS text CHECK (length(VALUE) < 20);
CREATE SEQUENCE unused START 5;
CREATE SEQUENCE round MINVALUE 1 MAXVALUE 3 CYCLE;
CREATE SEQUENCE cached CACHE 10;
SELECT setval('round', 2, false);
CREATE TABLE plain (id serial PRIMARY KEY, text text, mood mood, short short);
INSERT INTO plain (text, mood, short) SELECT 'row ' || g, 'sad', 'x' FROM generate_series(1, 30) g;
CREATE TABLE blank (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int UNIQUE, at timestamptz);
CREATE TABLE child (id bigserial PRIMARY KEY,
    parent int REFERENCES plain ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED);
INSERT INTO child (parent) SELECT g FROM generate_series(1, 10) g;
CREATE TABLE computed (id int PRIMARY KEY, double int GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO computed VALUES (1), (2);
CREATE TABLE wide (id int PRIMARY KEY, n int, big text);
INSERT INTO wide SELECT g, 0,
    (SELECT string_agg(md5(g::text || i), '') FROM generate_series(1, 500) i)
FROM generate_series(1, 4) g;
CREATE TABLE parted (id int, n int) PARTITION BY RANGE (n);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_rest PARTITION OF parted DEFAULT;
INSERT INTO parted SELECT g, g FROM generate_series(1, 20) g;
CREATE TABLE elder (id int, n int);
CREATE TABLE younger (extra text) INHERITS (elder);
INSERT INTO elder VALUES (1, 1); INSERT INTO younger VALUES (2, 2, 'y');
CREATE TABLE span (during int4range, EXCLUDE USING gist (during WITH &&));
INSERT INTO span VALUES ('[1,5)'), ('[10,20)');
CREATE TABLE log (what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO log VALUES (TG_OP || TG_TABLE_NAME); RETURN NULL; END$$;
CREATE TABLE noted (id int);
INSERT INTO noted VALUES (1);
CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON noted FOR EACH ROW EXECUTE FUNCTION note();
CREATE TABLE always (id int);
INSERT INTO always VALUES (1);
CREATE TRIGGER always AFTER INSERT OR UPDATE OR DELETE ON always
    FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE always ENABLE ALWAYS TRIGGER always;
CREATE TABLE replicated (id int);
INSERT INTO replicated VALUES (1);
CREATE TRIGGER replicated AFTER INSERT OR UPDATE OR DELETE ON replicated
    FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE replicated ENABLE REPLICA TRIGGER replicated;
CREATE TABLE ruled (id int);
INSERT INTO ruled VALUES (1);
CREATE RULE ruled AS ON DELETE TO ruled DO INSTEAD INSERT INTO log VALUES ('no');
CREATE TABLE secret (id int, owner text);
INSERT INTO secret VALUES (1, 'me'), (2, 'you');
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
ALTER TABLE secret FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON secret USING (owner = 'me');
CREATE SCHEMA "odd schema";
CREATE TABLE "odd schema"."it's ""odd"" \ % é" ("col %s" serial, "drop" int, "é" text);
INSERT INTO "odd schema"."it's ""odd"" \ % é" ("é") VALUES ('\ %'), (NULL);
ALTER TABLE "odd schema"."it's ""odd"" \ % é" DROP COLUMN "drop";
ALTER TABLE plain ADD COLUMN later int DEFAULT 7;
CREATE VIEW seen AS SELECT * FROM plain WHERE id < 10;
CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n, 1 AS id FROM plain;
CREATE UNIQUE INDEX counted_id ON counted (id);
CREATE INDEX plain_text ON plain USING gin (to_tsvector('simple', text));
COMMENT ON TABLE plain IS 'with a comment';
"""

ODD = '"odd schema"."it\'s ""odd"" \\ % é"'
TABLES = ["plain", "blank", "child", "wide", "parted", "elder", "span", "noted", "secret", ODD]
RARE_TABLES = ["computed", "always", "replicated", "ruled"]
SEQUENCES = ["unused", "round", "plain_id_seq", "blank_id_seq", "child_id_seq"]
Choose = random.Random


def plain_statement(rng: Choose) -> str:
    """A statement whose effects can be undone in place."""
    n = rng.randint(1, 40)
    return rng.choice(
        [
            f"INSERT INTO plain (text, mood, short) VALUES ('new {n}', 'happy', 'y')",
            f"INSERT INTO blank (n, at) VALUES ({n}, now())",
            f"INSERT INTO blank (n) SELECT g FROM generate_series({n}, {n} + 50) g",
            f"INSERT INTO blank (n) VALUES ({n}) ON CONFLICT (n) DO UPDATE SET at = now()",
            f"INSERT INTO blank (n) VALUES ({n}), ({n} + 1) ON CONFLICT DO NOTHING",
            f"INSERT INTO child (parent) VALUES ({n})",
            f"INSERT INTO wide VALUES ({n}, 1, repeat(md5('{n}'), 2000))",
            f"INSERT INTO parted VALUES ({n}, {n})",
            f"INSERT INTO younger VALUES ({n}, {n}, 'z')",
            f"INSERT INTO span VALUES (int4range({n}, {n} + 2))",
            f"INSERT INTO noted VALUES ({n})",
            f"INSERT INTO {ODD} (\"é\") VALUES ('{n}')",
            f"UPDATE plain SET text = text || {n} WHERE id = {n}",
            f"UPDATE plain SET id = id + 1000 WHERE id = {n}",
            f"UPDATE seen SET short = 'seen' WHERE id = {n}",
            f"UPDATE wide SET n = {n}",
            f"UPDATE wide SET big = big || '{n}' WHERE id = 2",
            f"UPDATE parted SET n = (n + 7) % 25 WHERE id = {n % 20}",
            f"UPDATE elder SET n = {n}",
            f"UPDATE secret SET owner = 'n{n}'",
            f"UPDATE child SET parent = {n} WHERE id = {n % 10}",
            f"DELETE FROM plain WHERE id = {n}",
            f"DELETE FROM {rng.choice(TABLES)}",
            f"DELETE FROM ONLY elder WHERE id = {n}",
            "DELETE FROM noted",
            "MERGE INTO plain USING generate_series(25, 35) AS g ON id = g "
            "WHEN MATCHED THEN UPDATE SET text = 'merged' "
            "WHEN NOT MATCHED THEN INSERT (id, text) VALUES (g, 'made')",
            "WITH gone AS (DELETE FROM plain WHERE id < 3 RETURNING *) "
            "INSERT INTO plain SELECT * FROM gone",
            f"SELECT nextval('{rng.choice(SEQUENCES)}')",
            f"SELECT nextval('{rng.choice(SEQUENCES)}') FROM generate_series(1, 40)",
            f"SELECT setval('{rng.choice(SEQUENCES)}', {n % 3 + 5}, {n % 2 == 0})",
            "SELECT * FROM plain FOR UPDATE",
            "SELECT * FROM wide FOR KEY SHARE",
            "SELECT count(*) FROM plain",
            f"SELECT lo_from_bytea(0, '\\x{n:02x}'::bytea)",
            f"SELECT lo_put(oid, {n}, '\\xff'::bytea) FROM pg_largeobject_metadata",
            "SELECT lo_unlink(oid) FROM pg_largeobject_metadata LIMIT 1",
            f"SELECT pg_try_advisory_lock({n})",
            f"SELECT pg_try_advisory_xact_lock({n})",
            "LISTEN something",
            "NOTIFY something",
            "LOCK TABLE blank IN EXCLUSIVE MODE",
            "SET search_path = 'odd schema', public",
            "SET session_replication_role = replica",
            "SET track_activities = off",
            "SET CONSTRAINTS ALL IMMEDIATE",
            "CHECKPOINT",
        ]
    )


def making_statement(rng: Choose) -> str:
    """A statement that makes something, or changes what was made."""
    n, table = rng.randint(1, 4), rng.choice(["plain", "blank", "child", "wide", "noted"])
    return rng.choice(
        [
            f"CREATE TABLE made_{n} (id serial PRIMARY KEY, text text DEFAULT 'x', "
            "CHECK (text > ''))",
            f"CREATE TABLE made_{n} (id int GENERATED ALWAYS AS IDENTITY, up int REFERENCES plain)",
            f"CREATE TABLE made_{n} (id int PRIMARY KEY, up int REFERENCES made_{n})",
            f"CREATE TABLE made_{n} AS SELECT * FROM {table}",
            f"CREATE TABLE made_{n} (LIKE {table} INCLUDING ALL)",
            f"CREATE TABLE made_{n} () INHERITS (elder)",
            f"CREATE TABLE made_{n} PARTITION OF parted FOR VALUES FROM ({n}00) TO ({n}50)",
            f"CREATE TABLE made_{n} (n int) PARTITION BY HASH (n)",
            f"CREATE TABLE made_{n}_{n} PARTITION OF made_{n} "
            "FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
            f"CREATE UNLOGGED TABLE made_{n} (id serial, text text)",
            f"CREATE TEMPORARY TABLE made_{n} (id serial, text text)",
            f"CREATE VIEW made_{n} AS SELECT * FROM {table}",
            f"CREATE MATERIALIZED VIEW made_{n} AS SELECT * FROM {table}",
            f"CREATE SEQUENCE made_{n} OWNED BY {table}.{'id' if table != 'blank' else 'n'}",
            f"CREATE SEQUENCE made_{n}",
            f"CREATE TYPE made_{n} AS (a int)",
            f"CREATE INDEX ON made_{n} (id)",
            f"CREATE INDEX made_on_{table} ON {table} (id)",
            f"CREATE OR REPLACE VIEW seen AS SELECT plain.* FROM plain, made_{n}",
            f"INSERT INTO made_{n} DEFAULT VALUES",
            f"SELECT nextval('made_{n}')",
            f"ALTER TABLE made_{n} ADD COLUMN added timestamptz DEFAULT now()",
            f"ALTER TABLE made_{n} RENAME TO {table}_too",
            f"ALTER TABLE made_{n} ALTER COLUMN id TYPE numeric",
            f"ALTER TABLE {table} RENAME TO made_{n}",
            f"ALTER TABLE {table} INHERIT made_{n}",
            f"ALTER SEQUENCE {rng.choice(SEQUENCES)} OWNED BY made_{n}.id",
            f"ALTER TABLE {table} ADD FOREIGN KEY (id) REFERENCES made_{n}",
            f"CREATE TRIGGER made AFTER INSERT ON {rng.choice([table, f'made_{n}'])} "
            "FOR EACH ROW EXECUTE FUNCTION note()",
            f"CREATE RULE made AS ON DELETE TO made_{n} DO INSTEAD NOTHING",
            f"COMMENT ON TABLE made_{n} IS 'made'",
            f"GRANT SELECT ON made_{n} TO app",
            f"ALTER TABLE made_{n} OWNER TO app",
            f"ANALYZE {rng.choice([table, f'made_{n}'])}",
            f"TRUNCATE {rng.choice([table, f'made_{n}'])} CASCADE",
            f"VACUUM made_{n}",
            f"DROP TABLE made_{n} CASCADE",
        ]
    )


def any_statement(rng: Choose) -> str:
    """A statement after which the database has to be replaced, or a hard one to see."""
    n = rng.randint(1, 40)
    table = rng.choice([*TABLES, *RARE_TABLES])
    return rng.choice(
        [
            f"INSERT INTO {rng.choice(RARE_TABLES)} VALUES ({n})",
            f"UPDATE {rng.choice(RARE_TABLES)} SET id = {n} WHERE id = 1",
            f"DELETE FROM {rng.choice(RARE_TABLES)}",
            "SELECT nextval('cached')",
            f"TRUNCATE {table} RESTART IDENTITY CASCADE",
            f"CREATE TABLE made_{n} (id serial, text text)",
            f"INSERT INTO made_{n} (text) VALUES ('x')",
            f"CREATE UNLOGGED TABLE unlogged_{n} AS SELECT * FROM plain",
            f"CREATE TEMPORARY TABLE temporary_{n} AS SELECT * FROM plain",
            f"ALTER TABLE {table} ADD COLUMN added_{n} int DEFAULT 3",
            f"ALTER TABLE {table} ALTER COLUMN id TYPE numeric",
            f"ALTER TABLE {table} SET UNLOGGED",
            f"ALTER TABLE {table} DISABLE TRIGGER ALL",
            f"ALTER TABLE {table} REPLICA IDENTITY FULL",
            f"DROP TABLE {table} CASCADE",
            f"CREATE INDEX ON {table} (id)",
            f"CREATE INDEX CONCURRENTLY ON {table} (id)",
            f"REINDEX TABLE {table}",
            f"CLUSTER {rng.choice(['plain USING plain_pkey', 'wide USING wide_pkey'])}",
            f"VACUUM {rng.choice(['', 'FULL', 'FREEZE'])} {table}",
            f"ANALYZE {table}",
            "VACUUM FULL pg_class",
            "VACUUM FULL pg_proc",
            "REINDEX SYSTEM",
            "REFRESH MATERIALIZED VIEW counted",
            "REFRESH MATERIALIZED VIEW CONCURRENTLY counted",
            f"ALTER SEQUENCE {rng.choice(SEQUENCES)} RESTART WITH 3",
            f"ALTER SEQUENCE {rng.choice(SEQUENCES)} INCREMENT BY 2 CACHE 5",
            "ALTER TYPE mood ADD VALUE IF NOT EXISTS 'angry'",
            "ALTER DOMAIN short ADD CHECK (VALUE <> 'never')",
            f"CREATE OR REPLACE VIEW seen AS SELECT * FROM plain WHERE id < {n}",
            "CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN RETURN NULL; END'",
            "CREATE EXTENSION IF NOT EXISTS hstore",
            "CREATE EXTENSION IF NOT EXISTS pg_trgm",
            f"COMMENT ON TABLE {table} IS 'changed'",
            "COMMENT ON DATABASE {database} IS 'changed'",
            "COMMENT ON DATABASE {database} IS NULL",
            "ALTER DATABASE {database} SET work_mem = '5MB'",
            "ALTER DATABASE {database} SET default_transaction_read_only = on",
            "ALTER DATABASE {database} SET search_path = ''",
            "ALTER DATABASE {database} CONNECTION LIMIT 9",
            "ALTER DATABASE {database} IS_TEMPLATE true",
            "ALTER DATABASE {database} OWNER TO app",
            "ALTER ROLE app IN DATABASE {database} SET work_mem = '5MB'",
            "GRANT CREATE ON DATABASE {database} TO app",
            f"GRANT SELECT ON {table} TO app",
            "GRANT CREATE ON SCHEMA public TO app",
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO app",
            "ALTER LARGE OBJECT {large_object} OWNER TO app",
            "GRANT SELECT ON LARGE OBJECT {large_object} TO app",
            "COMMENT ON LARGE OBJECT {large_object} IS 'changed'",
            "CREATE PUBLICATION everything FOR ALL TABLES",
            "CREATE SUBSCRIPTION mirror CONNECTION 'dbname=nowhere' PUBLICATION p "
            "WITH (connect = false, slot_name = NONE)",
            "SELECT pg_create_logical_replication_slot('slot_{database}', 'pgoutput')",
            "CREATE STATISTICS IF NOT EXISTS plain_statistics ON id, text FROM plain",
            "CREATE EVENT TRIGGER every ON ddl_command_end EXECUTE FUNCTION never()",
            f"CREATE SCHEMA made_{n}",
            f"CREATE TYPE made_type_{n} AS (a int)",
            f"PREPARE TRANSACTION 'prepared {n}'",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        ]
    )


class Program:
    """Statements over a few connections, some of which are left open."""

    def __init__(self, seed: str, url: str, database: str) -> None:
        self.said: list[str] = []
        self._rng = random.Random(seed)
        self._plain, self._making = self._rng.choice([(1.0, 0.0), (0.7, 0.3), (0.5, 0.1)])
        self._names = {"database": f'"{database}"', "large_object": "0"}
        self.connections: list[psycopg.Connection[Any]] = [
            psycopg.connect(url, autocommit=True, options="-c lock_timeout=50ms")
            for _ in range(self._rng.randint(1, 3))
        ]

    def run(self) -> list[psycopg.Connection[Any]]:
        """Return the connections that it leaves open."""
        for _ in range(self._rng.randint(0, 16)):
            self._step(self._rng.randrange(len(self.connections)))
        left = []
        for connection in self.connections:
            if self._rng.random() < 0.7:
                connection.close()
            else:
                left.append(connection)
        return left

    def _step(self, number: int) -> None:
        kind = self._rng.random()
        if kind < 0.12:
            statement = "BEGIN"
        elif kind < 0.2:
            statement = "COMMIT"
        elif kind < 0.26:
            statement = "ROLLBACK"
        elif kind < 0.32:
            statement = "SAVEPOINT a"
        elif kind < 0.37:
            statement = "ROLLBACK TO SAVEPOINT a"
        elif kind < 0.42:
            return self._copy(number)
        elif (choice := self._rng.random()) < self._plain:
            statement = plain_statement(self._rng)
        elif choice < self._plain + self._making:
            statement = making_statement(self._rng)
        else:
            statement = any_statement(self._rng)
        for name, value in self._names.items():
            statement = statement.replace(f"{{{name}}}", value)
        rows = self._execute(number, statement)
        if rows and "lo_from_bytea" in statement:
            self._names["large_object"] = str(rows[0][0])
        return None

    def _copy(self, number: int) -> None:
        self.said.append(f"{number}: COPY plain (text) FROM STDIN")
        connection = self.connections[number]
        copy = connection.cursor().copy("COPY plain (text) FROM STDIN")
        with contextlib.suppress(psycopg.Error), copy as rows:
            for row in range(20):
                rows.write_row((f"copied {row}",))

    def _execute(self, number: int, statement: str) -> list[tuple[Any, ...]]:
        try:
            cursor = self.connections[number].execute(statement.encode())
        except psycopg.Error as exc:
            self.said.append(f"{number}: {statement}  -- {str(exc).splitlines()[0]}")
            return []
        self.said.append(f"{number}: {statement}")
        return cursor.fetchall() if cursor.description else []


@pytest.mark.parametrize(
    "settings", [{}, {"wal_level": "logical", "max_prepared_transactions": "8"}]
)
def test_the_next_lease_has_a_database_like_a_fresh_clone(
    process_ground: Ground,
    settings: dict[str, str],
    start: Callable[[PostgresPlugin], ServiceHandle],
) -> None:
    """Random programs leave nothing in the next lease, and most of them are undone in place."""
    plugin = process_ground.plugin().with_init_script(TEMPLATE)
    for key, value in settings.items():
        plugin = plugin.with_setting(key, value)
    handle = start(plugin)
    expected = fresh_clone(handle)
    in_place = done = 0
    rest: list[psycopg.Connection[Any]] = []
    begun = time.monotonic()
    said: list[str] = []
    for seed in range(SEED, SEED + LEASES):
        with plugin.isolate(handle) as isolated:
            found = differences(expected, snapshot(isolated.url))
            assert not found, f"after seed {seed - 1}:\n" + "\n".join([*said, "", *found])
            while rest:
                rest.pop().close()
            before = sum(reason.count for reason in replaced(handle).values())
            program = Program(str(seed), isolated.url, isolated.require("database_name"))
            said = program.said
            rest = program.run()
        with plugin.isolate(handle) as isolated:
            found = differences(expected, snapshot(isolated.url))
            assert not found, f"after seed {seed}:\n" + "\n".join([*said, "", *found])
        in_place += before == sum(reason.count for reason in replaced(handle).values())
        done += 1
        if time.monotonic() - begun > SECONDS:
            break
    while rest:
        rest.pop().close()
    print(f"seeds {SEED} to {SEED + done - 1}: {in_place} of {done} undone in place;")
    print("\n".join(f"{each.count} replaced: {why}" for why, each in replaced(handle).items()))
    assert in_place >= done * 0.3


def fresh_clone(handle: ServiceHandle) -> Snapshot:
    """What is in a fresh clone of the template."""
    with admin_connection(handle.metadata) as admin:
        admin.execute("CREATE ROLE app")
        clone(admin, handle.require("template"), "fresh")
        found = snapshot(with_database(handle, "fresh").url)
        drop(admin, "fresh")
    return found
