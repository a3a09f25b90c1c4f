"""All there is in a PostgreSQL database, to compare one with a fresh clone of its template.

A clone has its template's object ids and file numbers, so catalogues are compared as they are.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

Snapshot = dict[str, list[str]]
"""By name of what it is of, its rows in order."""

_TABLES = """
SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND NOT c.relisshared
  AND n.nspname NOT LIKE 'pg_toast%' AND n.nspname <> 'information_schema'
"""
_SEQUENCES = """
SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'S'
"""
_OWN = "(SELECT oid FROM pg_database WHERE datname = current_database())"
_SHARED = {
    "properties": "SELECT (to_jsonb(d) - '{oid,datname,datfrozenxid,datminmxid}'::text[])::text "
    f"FROM pg_database AS d WHERE oid = {_OWN}",
    "settings": "SELECT setrole || setconfig::text FROM pg_db_role_setting "
    f"WHERE setdatabase = {_OWN}",
    "comment": f"SELECT description FROM pg_shdescription WHERE objoid = {_OWN}",
    "dependencies on roles": "SELECT concat_ws(' ', classid, objid, objsubid, refclassid, "
    f"refobjid, deptype) FROM pg_shdepend WHERE dbid = {_OWN}",
    "subscriptions": f"SELECT subname::text FROM pg_subscription WHERE subdbid = {_OWN}",
    "slots": "SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database()",
    "prepared": "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()",
    "sessions at work": "SELECT application_name || ' ' || state || ' ' || query "
    "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND (xact_start IS NOT NULL OR pid IN (SELECT pid FROM pg_locks))",
}


def snapshot(url: str) -> Snapshot:
    """Return all there is in the database at this address."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET ROLE NONE; SET row_security = off; SET search_path = public")
        found: Snapshot = {
            name: _rows(connection, sql.SQL(query)) for name, query in _SHARED.items()
        }
        for schema, name in connection.execute(_TABLES).fetchall():
            rows = sql.SQL("SELECT t::text FROM ONLY {} AS t").format(sql.Identifier(schema, name))
            try:
                found[f"{schema}.{name}"] = _rows(connection, rows)
            except psycopg.errors.ObjectNotInPrerequisiteState:
                found[f"{schema}.{name}"] = ["not populated"]
        for schema, name in connection.execute(_SEQUENCES).fetchall():
            place = sql.SQL("SELECT last_value || ' ' || is_called FROM {}")
            at = place.format(sql.Identifier(schema, name))
            found[f"{schema}.{name}"] = _rows(connection, at)
        return found


def differences(expected: Snapshot, found: Snapshot) -> list[str]:
    """Return what differs between two databases, a line each."""
    lines: list[str] = []
    for name in sorted({*expected, *found}):
        before, after = expected.get(name, []), found.get(name, [])
        if (name in expected) != (name in found):
            lines.append(f"{name}: {'gone' if name in expected else 'added'}")
        for row in _more(before, after):
            lines.append(f"{name}: missing {row[:200]}")
        for row in _more(after, before):
            lines.append(f"{name}: too much {row[:200]}")
    return lines


def _more(rows: list[str], than: list[str]) -> list[str]:
    left = list(rows)
    for row in than:
        if row in left:
            left.remove(row)
    return left


def _rows(connection: psycopg.Connection[Any], query: sql.SQL | sql.Composed) -> list[str]:
    return sorted(str(row[0]) for row in connection.execute(query).fetchall())
