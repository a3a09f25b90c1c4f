"""Copying what a database has into another one, while others stay connected to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cleanroom_plugin_postgres import _databases

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection
    from cleanroom_plugin_postgres._server import Server

_LARGEST = 256 * 1024 * 1024
"""Bytes of a database above which it is sooner renamed than copied."""

_SIZE = """
SELECT pg_database_size(current_database()), EXISTS (SELECT FROM pg_largeobject_metadata)
"""
_OURS = """
SELECT c.relkind, format('%I.%I', n.nspname, c.relname),
       (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '')
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'S') AND c.relpersistence = 'p' AND c.oid >= 16384
"""


def copy_content(server: Server, database: str, template: str, name: str) -> bool:
    """Make a clone of a template that has the rows and sequences of another clone of it.

    Whether that is all in which they differ is for the caller to know.

    Args:
        server: Ours.
        database: The database to copy from. Others may be connected to it.
        template: What it was cloned from.
        name: Of the database to make.

    Returns:
        Whether it holds all of that: a large database, one with large objects, and one with
        other tables than the template has are not copied.

    Raises:
        psycopg.Error: Something could not be copied.
    """
    with server.connect_to_undo(database) as source:
        source.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = source.execute(_SIZE).fetchone()
        if row is None or int(str(row[0])) > _LARGEST or row[1]:
            return False
        _databases.clone(server.admin, template, name)
        ours = source.execute(_OURS).fetchall()
        with server.connect_to_undo(name) as target:
            if set(target.execute(_OURS).fetchall()) != set(ours):
                return False
            for kind, relation, columns in ours:
                if kind == "S":
                    _copy_sequence(source, target, str(relation))
                else:
                    _copy_rows(source, target, str(relation), str(columns or ""))
    return True


def _copy_sequence(source: Connection, target: Connection, name: str) -> None:
    row = source.execute(f"SELECT last_value, is_called FROM {name}".encode()).fetchone()
    if row is not None:
        target.execute("SELECT pg_catalog.setval(%s, %s, %s)", [name, *row])


def _copy_rows(source: Connection, target: Connection, table: str, columns: str) -> None:
    """Copy the rows of a table. Triggers and foreign keys have done their part already."""
    target.execute(f"DELETE FROM ONLY {table}".encode())
    reading = f"COPY (SELECT {columns} FROM ONLY {table}) TO STDOUT (FORMAT binary)"
    writing = f"COPY {table} ({columns}) FROM STDIN (FORMAT binary)"
    if not columns:
        writing = f"COPY {table} FROM STDIN (FORMAT binary)"
    with (
        source.cursor().copy(reading.encode()) as rows,
        target.cursor().copy(writing.encode()) as copy,
    ):
        for block in rows:
            copy.write(block)
