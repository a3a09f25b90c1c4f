"""The rows of a template, looked up in a clone that nobody writes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cleanroom_plugin_postgres import _databases
from cleanroom_plugin_postgres._baseline import NotUndoableError
from cleanroom_plugin_postgres._content import Content, Relation, read_content
from cleanroom_plugin_postgres._made import Schema, read_schema

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection

LARGEST_COPY = 2 * 1024 * 1024
"""Bytes of a table above which a fresh clone is made sooner than its rows are put back."""
_MOST_KEPT = 64 * 1024 * 1024
"""Bytes of rows that are kept in memory."""


class Origin:
    """An untouched clone of a template, made when something has to be looked up in it.

    Args:
        admin: A connection to the maintenance database.
        template: The template's name.
        name: A name for the clone, which no other database has.
        connect: Opens a connection to a database.
    """

    def __init__(
        self, admin: Connection, template: str, name: str, connect: Callable[[str], Connection]
    ) -> None:
        self.template = template
        self._admin = admin
        self._name = name
        self._connect = connect
        self._made = False
        self._kept = 0
        self._schema: Schema | None = None
        self._rows: dict[str, tuple[bytes, str]] = {}

    def content(self) -> Content:
        """Return what is in the template."""
        with self._open() as connection:
            return read_content(connection)

    def schema(self) -> Schema:
        """Return what the template's catalogues have."""
        if self._schema is None:
            with self._open() as connection:
                self._schema = read_schema(connection)
        return self._schema

    def copy_in(self, table: Relation) -> tuple[str, bytes]:
        """Return the statement that copies a table's rows in, and the rows.

        Raises:
            NotUndoableError: There are too many, or they would not be the same.
        """
        if table.size > LARGEST_COPY:
            raise NotUndoableError(f"rows of {table.name} were changed, and it is large")
        if not table.is_copyable:
            raise NotUndoableError(
                f"rows of {table.name} were changed, which has generated columns or XML"
            )
        if table.name not in self._rows:
            self._rows[table.name] = self._look_up(table.name)
        rows, columns = self._rows[table.name]
        return f"COPY {table.name} ({columns}) FROM STDIN (FORMAT binary)", rows

    def _look_up(self, table: str) -> tuple[bytes, str]:
        if self._kept > _MOST_KEPT:
            raise NotUndoableError("rows of many tables were changed")
        with self._open() as connection:
            rows, columns = _copy_out(connection, table)
        self._kept += len(rows)
        return rows, columns

    def _open(self) -> Connection:
        if not self._made:
            _databases.drop(self._admin, self._name)
            _databases.clone(self._admin, self.template, self._name)
            self._made = True
        return self._connect(self._name)


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
