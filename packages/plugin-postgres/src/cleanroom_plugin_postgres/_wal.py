"""What was written to a database, as the server's write-ahead log knows it.

The log has every change of every relation, rolled-back ones and sequences included. Asking it takes
the contrib module `pg_walinspect` (PostgreSQL 15 and later) and a superuser. What it does not have
are unlogged tables, so a database that has any is not asked about.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection

FIRST_VERSION = 150000

CATALOGUE_MAP = -1
"""Stands for the file that says where a database's own catalogues lie."""

Writes = Mapping[int, frozenset[str]]
"""By file node, the kinds of log records that touched it: `"Heap INSERT"`, `"Sequence LOG"`..."""

# Locks on rows, hints, and what pruning tidies away are no changes of content.
_NO_CHANGE = ("LOCK", "LOCK_UPDATED", "FPI_FOR_HINT", "VISIBLE", "FREEZE_PAGE", "VACUUM")

# One row with no file node says up to where was asked, and which transaction came next before that.
_SCAN = f"""
WITH reach AS MATERIALIZED (SELECT {{end}} AS lsn)
SELECT NULL, pg_snapshot_xmax(pg_current_snapshot())::text, lsn::text FROM reach
UNION ALL
SELECT coalesce(match[2]::bigint, {CATALOGUE_MAP}),
       string_agg(DISTINCT resource_manager || ' ' || replace(record_type, '+INIT', ''), '|'), NULL
FROM reach, LATERAL pg_get_wal_records_info(%(start)s::pg_lsn, lsn) AS record
LEFT JOIN LATERAL regexp_matches(block_ref, 'rel \\d+/(\\d+)/(\\d+)', 'g') AS match ON true
WHERE (match[1]::oid = %(database)s OR resource_manager = 'RelMap')
  AND NOT record_type = ANY (%(no_change)s) AND record_type NOT LIKE 'PRUNE%%'
  AND NOT xid::text = ANY (%(own)s)
GROUP BY 1
"""


@dataclass(frozen=True, slots=True)
class Scan:
    """What was written to a database.

    Attributes:
        writes: By file node.
        next_transaction: Transactions from this one on wrote nothing before `end`.
        end: The log's position up to which was asked.
    """

    writes: Writes
    next_transaction: int
    end: str


class WriteLog:
    """Asks one server's log. Its connection is to the maintenance database, as a superuser."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # What is asked about must have been written out. Before version 17 that takes a commit.
        self._flushes = connection.info.server_version >= 170000
        end = "pg_logical_emit_message(false, 'cleanroom', '', true)"
        self._scan = _SCAN.format(end=end if self._flushes else "%(end)s::pg_lsn").encode()
        connection.execute("SET synchronous_commit = on")

    def scan(self, database: int, start: str, *, own: Collection[str] = ()) -> Scan:
        """Return what was written to a database from a position up to now.

        Args:
            database: The database's oid.
            start: The position.
            own: Ids of transactions to leave out.

        Raises:
            psycopg.Error: The log does not reach back that far any more.
        """
        values: dict[str, object] = {
            "start": start,
            "database": database,
            "no_change": list(_NO_CHANGE),
            "own": list(own),
        }
        if not self._flushes:
            row = self._connection.execute(
                "SELECT pg_logical_emit_message(true, 'cleanroom', '')::text"
            ).fetchone()
            values["end"] = row[0] if row else ""
        rows = self._connection.execute(self._scan, values).fetchall()
        writes = {
            int(str(node)): frozenset(str(kinds).split("|"))
            for node, kinds, _ in rows
            if node is not None
        }
        _, next_transaction, end = next(row for row in rows if row[0] is None)
        return Scan(writes, int(str(next_transaction)), str(end))


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
    return WriteLog(connection)
