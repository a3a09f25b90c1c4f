"""What is in a template, as far as putting a clone of it back needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from cleanroom_plugin_postgres._databases import literal

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection

Kind = Literal["table", "sequence", "derived", "catalogue", "large objects"]

_FIRST_USER_OID = 16384

# What is wrong with a relation: deleting its rows would set something off, or a session may know
# ahead what a sequence gives.
_RELATIONS = """
SELECT pg_relation_filenode(c.oid), c.oid, c.relkind, format('%I.%I', n.nspname, c.relname),
       c.relpersistence = 'u',
       CASE WHEN c.relkind IN ('r', 'm') THEN pg_relation_size(c.oid) ELSE 0 END,
       CASE WHEN c.oid < 16384 THEN ''
            WHEN EXISTS (SELECT FROM pg_trigger
                         WHERE tgrelid = c.oid AND tgenabled IN ('A', 'R'))
              OR EXISTS (SELECT FROM pg_rewrite
                         WHERE ev_class = c.oid AND ev_enabled IN ('A', 'R'))
            THEN 'has triggers or rules that always fire'
            WHEN EXISTS (SELECT FROM pg_sequence WHERE seqrelid = c.oid AND seqcache > 1)
            THEN 'is cached by sessions'
            ELSE '' END,
       c.oid < 16384 OR NOT EXISTS (
           SELECT FROM pg_attribute WHERE attrelid = c.oid
           AND (attgenerated = 's' OR atttypid IN ('xml'::regtype, 'xml[]'::regtype)))
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE pg_relation_filenode(c.oid) IS NOT NULL AND NOT c.relisshared
"""
_LARGE_OBJECTS = ("pg_catalog.pg_largeobject", "pg_catalog.pg_largeobject_metadata")


class Relation(NamedTuple):
    """A relation with storage of its own.

    Attributes:
        kind: `derived` is what follows from a table: its indexes and its oversized values.
        name: Qualified and quoted.
        size: Bytes of a table in the template.
        problem: Why it cannot be put back; empty if it can.
        is_copyable: Whether its rows, copied out and in, are the same. Generated columns are
            computed anew, which gives something else if their functions were changed.
    """

    kind: Kind
    name: str
    size: int
    problem: str
    is_copyable: bool


class Sequence(NamedTuple):
    """Where a sequence stands in the template."""

    value: int
    is_called: bool


class Content(NamedTuple):
    """A template's relations by file node, which its clones share, and its sequences by name.

    Attributes:
        relations: By file node.
        sequences: By name.
        large_objects: Whether there are any.
        size: Bytes of the database.
        problem: Why clones cannot be put back whatever was written; empty if they can.
    """

    relations: Mapping[int, Relation]
    sequences: Mapping[str, Sequence]
    large_objects: bool
    size: int
    problem: str


def read_content(connection: Connection) -> Content:
    """Read what is in a fresh clone, which the connection is to."""
    relations: dict[int, Relation] = {}
    problem = ""
    for node, oid, relkind, name, is_unlogged, size, own_problem, copyable in connection.execute(
        _RELATIONS.encode()
    ).fetchall():
        if is_unlogged:
            problem = "the template has unlogged tables"
        if node in relations:
            problem = "two tables of the template have the same number"
        kind = _kind(int(str(oid)), str(relkind), str(name))
        relations[int(str(node))] = Relation(
            kind, str(name), int(str(size)), str(own_problem), bool(copyable)
        )
    names = [each.name for each in relations.values() if each.kind == "sequence"]
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_largeobject_metadata), pg_database_size(current_database())"
    ).fetchone()
    assert row is not None  # noqa: S101 - a query without FROM has one row
    return Content(
        relations, _read_sequences(connection, names), bool(row[0]), int(str(row[1])), problem
    )


def _read_sequences(connection: Connection, names: list[str]) -> dict[str, Sequence]:
    """Ask the sequences themselves: views do not tell where one stands that was not used yet."""
    if not names:
        return {}
    queries = [f"SELECT {literal(name)}, last_value, is_called FROM {name}" for name in names]
    rows = connection.execute(" UNION ALL ".join(queries).encode()).fetchall()
    return {str(name): Sequence(int(str(value)), bool(called)) for name, value, called in rows}


def _kind(oid: int, relkind: str, name: str) -> Kind:
    if relkind == "i" or (relkind == "t" and oid >= _FIRST_USER_OID):
        return "derived"
    if name in _LARGE_OBJECTS:
        return "large objects"
    if oid < _FIRST_USER_OID:
        return "catalogue"
    return "sequence" if relkind == "S" else "table"
