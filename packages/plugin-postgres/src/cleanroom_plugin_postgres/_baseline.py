"""A clean state of one database, and why it may not be had again in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from cleanroom_plugin_postgres._state import Position, Shared, StateReader

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection


class NotUndoableError(Exception):
    """The database has to be replaced; the message says why."""


class SchemaChangedError(NotUndoableError):
    """So it has, and it is certain that the template is as it was."""


class TemplateChangedError(NotUndoableError):
    """So it has, and what was known of the template does not hold any more."""


class Baseline(NamedTuple):
    """A clean state of one database, and from where on what was written to it is looked for.

    Attributes:
        oid: The database's oid.
        template: The template's oid.
        next_transaction: Rows of this transaction and later ones are not the template's, but those
            of `putting_back`.
        position: Of the log: what follows was written since, but by `putting_back`.
        putting_back: Id of the transaction that put things back after that position; empty where
            there is none.
        belongings: Settings, grants and other things the database has beside its content.
        shared: What all databases of the server share, as of then.
        unmeasured: Bytes of the database's log since its size was looked at.
        is_past: Whether it is known already that the log has got further.
    """

    oid: int
    template: int
    next_transaction: int
    position: str
    belongings: Mapping[str, object]
    shared: Shared
    putting_back: str = ""
    unmeasured: int = 0
    is_past: bool = False

    @property
    def at(self) -> Position:
        """Where the log is while nothing is written since, as long as nobody is at work there.

        Where something was put back, it has got further.
        """
        return Position.of(self.position, self.shared)

    @property
    def added(self) -> str:
        """The condition that holds of rows that were added since; `{row}` is for the table."""
        oldest = f"pg_catalog.age('{self.next_transaction & 0xFFFFFFFF}'::pg_catalog.xid)"
        # Of rows that are two thousand million transactions old, the age is below zero.
        condition = f"pg_catalog.age({{row}}xmin) BETWEEN 0 AND {oldest}"
        if self.putting_back:
            condition += f" AND {{row}}xmin <> '{self.putting_back}'::pg_catalog.xid"
        return condition


def mark(admin: Connection) -> tuple[int, str]:
    """Return the next transaction and the log's position as of now."""
    row = admin.execute(
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text, pg_current_wal_insert_lsn()::text"
    ).fetchone()
    assert row is not None  # noqa: S101 - a query without FROM has one row
    return int(str(row[0])), str(row[1])


def take_baseline(
    reader: StateReader, database: str, template: str, before: tuple[int, str]
) -> Baseline | None:
    """Note the state of a fresh clone; `None` if it is gone already.

    Args:
        reader: Of the server.
        database: The clone's name.
        template: The template's name.
        before: What `mark` returned before the clone was made: nobody could have written to it.
    """
    state, shared = reader.ask(database, template)
    if state is None:
        return None
    return Baseline(state.oid, state.template, *before, state.belongings, shared)


class Session:
    """Our session in a database, opened when it is first needed.

    Args:
        connect: Opens a connection to the database.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._connection: Connection | None = None

    @property
    def lost(self) -> bool:
        """Whether it was opened, and somebody else has ended it."""
        return self._connection is not None and self._connection.closed

    def opened(self) -> Connection:
        """Return its connection."""
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def pids(self) -> list[int]:
        """Return the server's process id of it, if it is open."""
        if self._connection is None or self._connection.closed:
            return []
        return [self._connection.info.backend_pid]

    def close(self) -> None:
        """Close the connection, if it is open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
