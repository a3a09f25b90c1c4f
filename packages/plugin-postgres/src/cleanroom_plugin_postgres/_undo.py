"""Undoing in place what a test wrote, where it is certain what that was.

A database is clean when the log has no write to it. Where only rows, sequences and large objects
were written, they are put back as the template has them. Anything else is left to a fresh clone,
and so is whatever fails here: undoing never guesses.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from cleanroom_plugin_postgres import _databases
from cleanroom_plugin_postgres._content import Content, Relation, Sequence, read_content
from cleanroom_plugin_postgres._origin import NotUndoableError, Origin
from cleanroom_plugin_postgres._wal import CATALOGUE_MAP

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection
    from cleanroom_plugin_postgres._wal import WriteLog, Writes

_INSERTS = frozenset({"Heap INSERT", "Heap2 MULTI_INSERT", "Heap CONFIRM"})

_BLOAT = 2 * 1024 * 1024
"""Bytes by which dead rows may enlarge a table before they are cleared away."""

_BELONGINGS = """
       (SELECT coalesce(string_agg(setrole::text || setconfig::text, ',' ORDER BY setrole), '')
        FROM pg_db_role_setting WHERE setdatabase = d.oid)
       || ' ' || coalesce(d.datacl::text, '') || ' ' || d.datdba || ' ' || d.datconnlimit
       || ' ' || d.datallowconn || ' ' || d.datistemplate
"""
# Sessions with an open transaction or an advisory lock: ended at once (-) if left alone for long.
_STATE = f"""
SELECT d.oid, {_BELONGINGS},
       (SELECT count(*) FROM pg_prepared_xacts WHERE database = d.datname),
       (SELECT coalesce(array_agg(CASE
            WHEN state <> 'active' AND clock_timestamp() - state_change > interval '50 ms'
            THEN -pid ELSE pid END), '{{}}')
        FROM pg_stat_activity AS a
        WHERE datid = d.oid AND pid <> ALL (%(ours)s) AND backend_type = 'client backend'
          AND (xact_start IS NOT NULL
               OR EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = a.pid)))
FROM pg_database d WHERE d.datname = %(database)s
"""
_PATIENCE = 0.25
"""Seconds in which a transaction of a running service may end by itself."""
_ROUNDS = 5
# Triggers, rules and foreign keys have done their part when the rows were written.
_QUIETLY = (
    "SET LOCAL session_replication_role = replica; SET LOCAL lock_timeout = '2s'; "
    "SET LOCAL row_security = off; SET LOCAL standard_conforming_strings = on"
)


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


def mark(admin: Connection) -> tuple[int, str]:
    """Return the next transaction and the log's position as of now."""
    row = admin.execute(
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text, pg_current_wal_insert_lsn()::text"
    ).fetchone()
    assert row is not None  # noqa: S101 - a query without FROM has one row
    return int(str(row[0])), str(row[1])


def take_baseline(admin: Connection, database: str, before: tuple[int, str]) -> Baseline:
    """Note the state of a fresh clone.

    Args:
        admin: A connection to the maintenance database.
        database: The clone's name.
        before: What `mark` returned before the clone was made: nobody could have written to it.
    """
    query = f"SELECT d.oid, {_BELONGINGS} FROM pg_database d WHERE d.datname = %s"
    row = admin.execute(query.encode(), [database]).fetchone()
    if row is None:
        raise NotUndoableError("the database is gone")
    return Baseline(int(str(row[0])), before[0], before[1], str(row[1]))


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
        self._await_quiet(database, baseline, connection)
        start, own = baseline.position, set[str]()
        for attempt in range(_ROUNDS):
            scan = self._log.scan(baseline.oid, start, own=own)
            if not scan.writes:
                if self._content is None:
                    self.learn(connection)
                return replace(baseline, next_transaction=scan.next_transaction, position=scan.end)
            if self._content is None:
                self._content = self._origin.content()
            if self._content.unlogged:
                raise NotUndoableError("the template has unlogged tables")
            # What this has put back itself cannot be told by its age from what was added since.
            since = baseline.next_transaction if attempt == 0 else None
            own.add(self._put_back(connection, self._content, scan.writes, since))
            start = scan.end
        raise NotUndoableError("it is being written to")

    def _await_quiet(self, database: str, baseline: Baseline, connection: Connection) -> None:
        """Give what runs a moment to end; end what a test left open, or what holds a lock.

        Raises:
            NotUndoableError: It is another database, or its settings or grants were changed.
        """
        ours = [connection.info.backend_pid, self._admin.info.backend_pid]
        values = {"database": database, "ours": ours}
        deadline = time.monotonic() + _PATIENCE
        while True:
            row = self._admin.execute(_STATE.encode(), values).fetchone()
            if row is None or row[0] != baseline.oid:
                raise NotUndoableError("the database was dropped or made again")
            _, belongings, prepared, sessions = row
            if belongings != baseline.belongings:
                raise NotUndoableError("settings or grants of the database were changed")
            if prepared:
                raise NotUndoableError("a prepared transaction was left open")
            if not sessions:
                return
            late = time.monotonic() > deadline
            for pid in cast("list[int]", sessions):
                if pid < 0 or late:
                    self._admin.execute("SELECT pg_terminate_backend(%s, 5000)", [abs(pid)])
            time.sleep(0.001)

    def _put_back(
        self, connection: Connection, content: Content, writes: Writes, since: int | None
    ) -> str:
        """Put back what was written to, in one transaction.

        Args:
            connection: To the database.
            content: What is in the template.
            writes: What was written to, and how.
            since: Rows of this transaction and later ones were added; `None` if that says nothing.

        Returns:
            The id of the transaction.
        """
        steps = ["BEGIN", _QUIETLY]
        copies: list[tuple[str, bytes]] = []
        tables: list[Relation] = []
        for relation, kinds in _sorted(content, writes):
            if relation.kind == "sequence":
                steps.append(_set_back(relation, content.sequences[relation.name]))
            elif relation.kind == "large objects":
                steps.append(_unlink_large_objects(content))
            else:
                tables.append(relation)
                added_only = since is not None and kinds <= _INSERTS
                steps.append(_delete(relation, since if added_only else None))
                if relation.size and not added_only:
                    copies.append(self._origin.copy_in(relation))
        for statement, rows in copies:
            _databases.run(connection, "; ".join(steps))
            steps.clear()
            with connection.cursor().copy(statement.encode()) as copy:
                copy.write(rows)
        sizes = ", ".join(f"pg_relation_size({_databases.literal(t.name)})" for t in tables)
        steps.append(f"SELECT pg_current_xact_id()::xid::text, ARRAY[{sizes}]::bigint[]")
        cursor = connection.execute("; ".join(steps).encode())
        while cursor.nextset():
            pass
        row = cursor.fetchone()
        connection.execute("COMMIT")
        assert row is not None  # noqa: S101 - a query without FROM has one row
        _check_bloat(tables, cast("list[int]", row[1]))
        return str(row[0])


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


def _set_back(relation: Relation, sequence: Sequence) -> str:
    name = _databases.literal(relation.name)
    return f"SELECT setval({name}, {sequence.value}, {str(sequence.is_called).lower()})"


def _delete(table: Relation, since: int | None) -> str:
    """The statement that deletes the rows that were added, or all of them."""
    if table.size == 0 or since is None:
        return f"DELETE FROM ONLY {table.name}"
    return f"DELETE FROM ONLY {table.name} WHERE age(xmin) <= age('{since & 0xFFFFFFFF}'::xid)"


def _unlink_large_objects(content: Content) -> str:
    if content.large_objects:
        raise NotUndoableError("large objects were changed, and the template has some")
    return "SELECT count(lo_unlink(oid)) FROM pg_largeobject_metadata"


def _check_bloat(tables: Iterable[Relation], sizes: Iterable[int]) -> None:
    """Ask for a fresh clone before there are so many dead rows that they slow the tests."""
    for table, size in zip(tables, sizes, strict=True):
        if size > table.size + _BLOAT:
            raise NotUndoableError(f"{table.name} is full of dead rows")
