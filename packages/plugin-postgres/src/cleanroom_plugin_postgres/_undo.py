"""Undoing in place what a test wrote, where it is certain what that was.

A database is clean when the log has no write to it. Where only rows, sequences and large objects
were written, they are put back as the template has them. Anything else is left to a fresh clone,
and so is whatever fails here: undoing never guesses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cleanroom_plugin_postgres import _databases
from cleanroom_plugin_postgres._content import Content, Relation, Sequence, read_content
from cleanroom_plugin_postgres._wal import CATALOGUE_MAP

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection
    from cleanroom_plugin_postgres._wal import WriteLog, Writes

_INSERTS = frozenset({"Heap INSERT", "Heap2 MULTI_INSERT", "Heap CONFIRM"})

LARGEST_COPY = 32 * 1024 * 1024
"""Bytes of a table above which it is not put back row by row."""

_BLOAT = 2 * 1024 * 1024
"""Bytes by which dead rows may enlarge a table before they are cleared away."""

_BELONGINGS = """
SELECT d.oid,
       (SELECT coalesce(string_agg(setrole::text || setconfig::text, ',' ORDER BY setrole), '')
        FROM pg_db_role_setting WHERE setdatabase = d.oid)
       || ' ' || coalesce(d.datacl::text, '') || ' ' || d.datdba || ' ' || d.datconnlimit
       || ' ' || d.datallowconn || ' ' || d.datistemplate,
       (SELECT count(*) FROM pg_prepared_xacts WHERE database = d.datname)
FROM pg_database d WHERE d.datname = %s
"""
_OPEN_TRANSACTIONS = """
SELECT pid, state <> 'active' AND clock_timestamp() - state_change > interval '50 ms'
FROM pg_stat_activity
WHERE datname = %(database)s AND pid <> ALL (%(ours)s) AND backend_type = 'client backend'
  AND (xact_start IS NOT NULL
       OR EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pg_locks.pid = a.pid))
""".replace("FROM pg_stat_activity", "FROM pg_stat_activity AS a")
_PATIENCE = 0.25
"""Seconds in which a transaction of a running service may end by itself."""
_ROUNDS = 5


class NotUndoableError(Exception):
    """The database has to be replaced; the message says why."""


@dataclass(frozen=True)
class Baseline:
    """A clean state of one database.

    Attributes:
        oid: The database's oid.
        next_transaction: Rows of this transaction and later ones are not the template's.
        position: Of the log: what follows was written since.
        belongings: Settings and grants of the database.
    """

    oid: int
    next_transaction: int
    position: str
    belongings: str


def take_baseline(admin: Connection, database: str, before: tuple[int, str]) -> Baseline:
    """Note the state of a fresh clone.

    Args:
        admin: A connection to the maintenance database.
        database: The clone's name.
        before: What `mark` returned before the clone was made: nobody could have written to it.
    """
    oid, belongings = _belongings(admin, database)
    return Baseline(oid, before[0], before[1], belongings)


def mark(admin: Connection) -> tuple[int, str]:
    """Return the next transaction and the log's position as of now."""
    row = admin.execute(
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text, pg_current_wal_insert_lsn()::text"
    ).fetchone()
    assert row is not None  # noqa: S101 - a query without FROM has one row
    return int(str(row[0])), str(row[1])


def _belongings(admin: Connection, database: str) -> tuple[int, str]:
    row = admin.execute(_BELONGINGS, [database]).fetchone()
    if row is None:
        raise NotUndoableError("the database is gone")
    if row[2]:
        raise NotUndoableError("a prepared transaction was left open")
    return int(str(row[0])), str(row[1])


class Undo:
    """Puts the clones of one template back.

    Args:
        admin: A superuser's connection to the maintenance database.
        log: The server's log.
        origin: Knows the rows of the template.

    What is in the template it learns from the first clean clone it meets.
    """

    def __init__(self, admin: Connection, log: WriteLog, origin: Origin) -> None:
        self._admin = admin
        self._log = log
        self._origin = origin
        self._content: Content | None = None

    @property
    def ignorant(self) -> bool:
        """Whether it has not learned yet what is in the template."""
        return self._content is None

    def learn(self, connection: Connection) -> None:
        """Learn what is in the template from a clean clone of it."""
        self._content = read_content(connection)

    def undo(self, database: str, baseline: Baseline, connection: Connection) -> Baseline:
        """Put a database back to its baseline and return the new one.

        Args:
            database: The database's name.
            baseline: Its last clean state.
            connection: Ours to the database.

        Raises:
            NotUndoableError: It must be replaced; says why.
        """
        self._await_end_of_transactions(database, connection)
        oid, belongings = _belongings(self._admin, database)
        if oid != baseline.oid:
            raise NotUndoableError("the database was dropped and made again")
        if belongings != baseline.belongings:
            raise NotUndoableError("settings or grants of the database were changed")
        if self._content is not None and self._content.unlogged:
            raise NotUndoableError("the template has unlogged tables")
        start, own = baseline.position, set[str]()
        for _ in range(_ROUNDS):
            next_transaction, _ = mark(self._admin)
            end = self._log.position()
            writes = self._log.written(oid, start, end, own=own)
            if not writes:
                if self._content is None:
                    self.learn(connection)
                return Baseline(oid, next_transaction, end, belongings)
            if self._content is None:
                raise NotUndoableError("the template was not known yet")
            own.add(self._put_back(connection, self._content, writes, baseline))
            start = end
        raise NotUndoableError("it is being written to")

    def _await_end_of_transactions(self, database: str, connection: Connection) -> None:
        """Give what runs a moment to end; end what a test left open, or holds a lock."""
        values = {
            "database": database,
            "ours": [connection.info.backend_pid, self._admin.info.backend_pid],
        }
        deadline = time.monotonic() + _PATIENCE
        while found := self._admin.execute(_OPEN_TRANSACTIONS, values).fetchall():
            late = time.monotonic() > deadline
            for pid, left in found:
                if left or late:
                    self._admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            time.sleep(0.001)

    def _put_back(
        self, connection: Connection, content: Content, writes: Writes, baseline: Baseline
    ) -> str:
        """Put back what was written to. Returns the id of the transaction that did it."""
        touched = _sorted(content, writes)
        added = f"age(xmin) <= age('{baseline.next_transaction & 0xFFFFFFFF}'::xid)"
        with connection.transaction():
            # Triggers, rules and foreign keys have done their part when the rows were written.
            connection.execute(
                "SET LOCAL session_replication_role = replica; SET LOCAL lock_timeout = '2s'; "
                "SET LOCAL row_security = off"
            )
            for relation, kinds in touched:
                if relation.kind == "table":
                    self._put_back_table(connection, relation, kinds, added)
                elif relation.kind == "sequence":
                    _put_back_sequence(connection, relation, content.sequences[relation.name])
                elif relation.kind == "large objects":
                    _put_back_large_objects(connection, content)
            row = connection.execute("SELECT pg_current_xact_id()::xid::text").fetchone()
        _check_bloat(connection, [each for each, _ in touched if each.kind == "table"])
        return str(row[0]) if row else ""

    def _put_back_table(
        self, connection: Connection, table: Relation, kinds: frozenset[str], added: str
    ) -> None:
        if table.size == 0:
            _databases.run(connection, f"DELETE FROM ONLY {table.name}")
        elif kinds <= _INSERTS:
            _databases.run(connection, f"DELETE FROM ONLY {table.name} WHERE {added}")
        elif table.size > LARGEST_COPY:
            raise NotUndoableError(f"rows of {table.name} were changed, and it is large")
        else:
            rows, columns = self._origin.rows(table.name)
            _databases.run(connection, f"DELETE FROM ONLY {table.name}")
            statement = f"COPY {table.name} ({columns}) FROM STDIN (FORMAT binary)"
            with connection.cursor().copy(statement.encode()) as copy:
                copy.write(rows)


def _sorted(content: Content, writes: Writes) -> list[tuple[Relation, frozenset[str]]]:
    """The relations that were written to, with how; refuses what cannot be put back."""
    touched: list[tuple[Relation, frozenset[str]]] = []
    for node, kinds in writes.items():
        relation = content.relations.get(node)
        if node == CATALOGUE_MAP:
            raise NotUndoableError("a catalogue was rewritten")
        if relation is None:
            raise NotUndoableError("a table or index was made or rewritten")
        if relation.kind == "catalogue":
            raise NotUndoableError(f"the schema was changed ({relation.name})")
        if relation.kind != "derived":
            if not relation.plain:
                raise NotUndoableError(f"{relation.name} has triggers or caching of its own")
            touched.append((relation, kinds))
    return touched


def _put_back_sequence(connection: Connection, relation: Relation, sequence: Sequence) -> None:
    connection.execute(
        "SELECT setval(%s::regclass, %s, %s)",
        [relation.name, sequence.value, sequence.is_called],
    )


def _put_back_large_objects(connection: Connection, content: Content) -> None:
    if content.large_objects:
        raise NotUndoableError("large objects were changed, and the template has some")
    connection.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")


def _check_bloat(connection: Connection, tables: Iterable[Relation]) -> None:
    """Ask for a fresh clone before there are so many dead rows that they slow the tests."""
    for table in tables:
        row = connection.execute("SELECT pg_relation_size(%s::regclass)", [table.name]).fetchone()
        if row and int(str(row[0])) > table.size + _BLOAT:
            raise NotUndoableError(f"{table.name} is full of dead rows")


class Origin:
    """An untouched clone of a template, made when the first row has to be looked up in it."""

    def __init__(
        self, admin: Connection, template: str, name: str, connect: Callable[[str], Connection]
    ) -> None:
        self._admin = admin
        self._template = template
        self._name = name
        self._connect = connect
        self._made = False
        self._rows: dict[str, tuple[bytes, str]] = {}

    def rows(self, table: str) -> tuple[bytes, str]:
        """Return a table's rows in COPY's binary format, and the columns they consist of."""
        if table not in self._rows:
            if not self._made:
                _databases.drop(self._admin, self._name)
                _databases.clone(self._admin, self._template, self._name)
                self._made = True
            with self._connect(self._name) as connection:
                self._rows[table] = _copy_out(connection, table)
        return self._rows[table]


def _copy_out(connection: Connection, table: str) -> tuple[bytes, str]:
    row = connection.execute(
        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
        [table],
    ).fetchone()
    columns = str(row[0]) if row and row[0] else ""
    statement = f"COPY (SELECT {columns} FROM ONLY {table}) TO STDOUT (FORMAT binary)"
    with connection.cursor().copy(statement.encode()) as copy:
        return b"".join(bytes(block) for block in copy), columns
