"""What was written to a database, as the server's write-ahead log knows it.

The log has every change of every relation, sequences included, and who made it. Asking it takes
the contrib module `pg_walinspect` (PostgreSQL 15 and later) and a superuser. What it does not have
are unlogged tables, so a database that has any is not asked about.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cleanroom_plugin_postgres._databases import literal, run_all
from cleanroom_plugin_postgres._state import FIRST_VERSION

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection

CATALOGUE_MAP = -1
"""Stands for the file that says where a database's own catalogues lie."""
TEMPLATE = -2
"""Stands for the template."""
UNTOLD = -3
"""Stands for what an extension wrote in a way of its own."""

Writes = Mapping[int, frozenset[str]]
"""By file node, the kinds of log records that touched it: `"Heap INSERT"`, `"Sequence LOG"`..."""

_LONGEST = 2 * 1024 * 1024
"""Bytes of log above which a fresh clone is made sooner than they are read."""

# Locks on rows, hints, and what pruning tidies away are no changes of content.
_NO_CHANGE = "'LOCK', 'LOCK_UPDATED', 'FPI_FOR_HINT', 'VISIBLE', 'FREEZE_PAGE', 'VACUUM'"
# Each of their records touches one relation.
_KNOWN = "'Heap', 'Heap2', 'Btree', 'Hash', 'Gin', 'Gist', 'SPGist', 'BRIN', 'Sequence', 'XLOG'"
# What a rolled-back transaction leaves nothing of, all but these.
_LASTING = "('Sequence LOG', 'Heap INPLACE', 'RelMap UPDATE')"

_WIDE = "(next + (xid::text::bigint - next % 4294967296 + 6442450944) % 4294967296 - 2147483648)"
# One row with no file node says up to where was asked, how many bytes of log were the database's,
# and whether a transaction that wrote to it is not over. Parameters: start of the log to read, the
# database, the template, transactions to leave out.
_SCAN = f"""
WITH reach AS MATERIALIZED (
    SELECT lsn, lsn - $1 AS length, pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next
    FROM (SELECT {{end}} AS lsn) AS position
),
record AS (
    SELECT string_to_array(split_part(block_ref, ' ', 4), '/') AS place,
           resource_manager AS manager,
           resource_manager || ' ' || replace(record_type, '+INIT', '') AS kind, description,
           xid, next, record_length - fpi_length AS length
    FROM reach, LATERAL pg_get_wal_records_info($1, lsn)
    WHERE reach.length < {_LONGEST}
      AND (position('/' || $2::text || '/' IN block_ref) > 0
           OR position('/' || $3::text || '/' IN block_ref) > 0 OR resource_manager = 'RelMap')
      AND record_type NOT IN ({_NO_CHANGE}) AND record_type NOT LIKE 'PRUNE%'
      AND xid <> ALL ($4)
),
touch AS (
    SELECT CASE WHEN manager = 'RelMap' THEN {CATALOGUE_MAP}
                WHEN place[2]::oid = $3 THEN {TEMPLATE}
                WHEN manager IN ({_KNOWN}) THEN place[3]::bigint
                ELSE {UNTOLD} END AS node, kind, xid, next, sum(length) AS length
    FROM record
    WHERE place[2]::oid IN ($2, $3)
       OR (manager = 'RelMap' AND split_part(description, ' ', 2)::oid = $2)
    GROUP BY 1, 2, 3, 4
),
told AS (
    SELECT node, kind, length,
           CASE WHEN xid::text <> '0' THEN pg_xact_status({_WIDE}::text::xid8) END AS status
    FROM touch
)
SELECT NULL, lsn::text, length < {_LONGEST}, (SELECT coalesce(sum(length), 0) FROM told)::bigint,
       EXISTS (SELECT FROM told WHERE status = 'in progress' AND node <> {TEMPLATE})
FROM reach
UNION ALL
SELECT node, string_agg(DISTINCT kind, '|'), NULL, NULL, NULL FROM told
WHERE kind IN {_LASTING} OR status IS DISTINCT FROM 'aborted'
GROUP BY node
"""


class TooLongError(Exception):
    """More was written to the log than is worth reading."""


class Scan(NamedTuple):
    """What was written to a database, rolled-back transactions left out.

    Attributes:
        writes: By file node.
        length: Bytes of the database's part of the log, rolled-back transactions included.
        end: The log's position up to which was asked.
        is_open: Whether a transaction that has written to it may still commit.
    """

    writes: Writes
    length: int
    end: str
    is_open: bool


class WriteLog:
    """Asks one server's log. Its connection is to the maintenance database, as a superuser."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # What is asked about must have been written out. Before version 17 that takes a commit.
        self._emit: list[str] = []
        end = "pg_logical_emit_message(false, 'cleanroom', '', true)"
        if connection.info.server_version < 170000:
            message = "pg_logical_emit_message(true, 'cleanroom', '')::text"
            self._emit = [
                "BEGIN",
                f"SELECT set_config('cleanroom.end', {message}, false)",
                "COMMIT",
            ]
            # Where nobody has written since, it is the end of that commit.
            end = (
                "(SELECT CASE WHEN inserted = flushed THEN inserted "
                "ELSE current_setting('cleanroom.end')::pg_lsn END FROM "
                "(SELECT pg_current_wal_insert_lsn() AS inserted, "
                "pg_current_wal_flush_lsn() AS flushed OFFSET 0) AS now)"
            )
        scan = f"PREPARE cleanroom_scan (pg_lsn, oid, oid, xid[]) AS {_SCAN.format(end=end)}"
        run_all(connection, ["SET synchronous_commit = on", scan])

    def scan(
        self,
        databases: tuple[int, int],
        start: str,
        *,
        without: Collection[str] = (),
        after: Sequence[str] = (),
    ) -> tuple[Scan, list[list[tuple[object, ...]]]]:
        """Return what was written to a database from a position up to now.

        Args:
            databases: Oids of the database and of its template.
            start: The position.
            without: Ids of transactions to leave out.
            after: Statements to execute first.

        Returns:
            The scan, and the rows of those statements.

        Raises:
            TooLongError: That is too much to read.
            psycopg.Error: The log does not reach back that far any more.
        """
        arguments = f"{literal(start)}, {databases[0]}, {databases[1]}, '{{{','.join(without)}}}'"
        answers = run_all(
            self._connection, [*after, *self._emit, f"EXECUTE cleanroom_scan({arguments})"]
        )
        _, end, is_whole, length, is_open = next(row for row in answers[-1] if row[0] is None)
        if not is_whole:
            raise TooLongError
        writes = {
            int(str(node)): frozenset(str(kinds).split("|"))
            for node, kinds, *_ in answers[-1]
            if node is not None
        }
        return Scan(writes, int(str(length)), str(end), bool(is_open)), answers[: len(after)]

    def tells(self) -> bool:
        """Try whether a write is found: a version to come may word its answers in another way."""
        (facts,), *_ = run_all(
            self._connection,
            [
                "SELECT pg_current_wal_insert_lsn()::text, oid::bigint, "
                "pg_relation_filenode('pg_largeobject_metadata')::bigint "
                "FROM pg_database WHERE datname = current_database()",
                "SELECT lo_unlink(lo_create(0))",
            ],
        )
        start, database, node = facts
        found, _ = self.scan((int(str(database)), 0), str(start))
        return found.writes.get(int(str(node)), _NONE) >= {"Heap INSERT", "Heap DELETE"}


_NONE = frozenset[str]()


def open_log(connection: Connection) -> WriteLog | None:
    """Return the server's log, or `None` where it cannot be asked.

    Args:
        connection: To the maintenance database. The extension is created there.
    """
    if connection.info.server_version < FIRST_VERSION:
        return None
    row = connection.execute(
        "SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) "
        "AND current_setting('wal_level') <> 'minimal' "
        "AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_walinspect')"
    ).fetchone()
    if not (row and row[0]):
        return None
    with connection.transaction():  # workers may get here at the same time
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('cleanroom.walinspect'))")
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
    log = WriteLog(connection)
    return log if log.tells() else None
