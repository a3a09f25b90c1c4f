"""What is in a template, as far as putting a clone of it back needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cleanroom_plugin_postgres._databases import literal

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection

Kind = Literal["table", "sequence", "derived", "catalogue", "large objects"]

_FIRST_USER_OID = 16384

_RELATIONS = """
SELECT pg_relation_filenode(c.oid), c.oid, c.relkind, format('%I.%I', n.nspname, c.relname),
       c.relpersistence = 'u',
       CASE WHEN c.relkind IN ('r', 'm') THEN pg_relation_size(c.oid) ELSE 0 END,
       EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND tgenabled = 'A')
       OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid AND ev_enabled = 'A'),
       coalesce((SELECT seqcache FROM pg_sequence WHERE seqrelid = c.oid), 1)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE pg_relation_filenode(c.oid) IS NOT NULL
"""
_LARGE_OBJECTS = ("pg_catalog.pg_largeobject", "pg_catalog.pg_largeobject_metadata")


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation with storage of its own.

    Attributes:
        kind: `derived` is what follows from a table: its indexes and its oversized values.
        name: Qualified and quoted.
        size: Bytes of a table in the template.
        plain: Whether putting it back sets off nothing else and depends on nothing else.
    """

    kind: Kind
    name: str
    size: int
    plain: bool


@dataclass(frozen=True, slots=True)
class Sequence:
    """Where a sequence stands in the template."""

    value: int
    is_called: bool


@dataclass(frozen=True)
class Content:
    """A template's relations by file node, which its clones share, and its sequences by name."""

    relations: Mapping[int, Relation]
    sequences: Mapping[str, Sequence]
    unlogged: bool
    large_objects: bool


def read_content(connection: Connection) -> Content:
    """Read what is in a fresh clone, which the connection is to."""
    relations: dict[int, Relation] = {}
    unlogged = False
    for node, oid, relkind, name, is_unlogged, size, always, cache in connection.execute(
        _RELATIONS.encode()
    ).fetchall():
        kind = _kind(int(str(oid)), str(relkind), str(name))
        plain = not always and int(str(cache)) == 1
        relations[int(str(node))] = Relation(kind, str(name), int(str(size)), plain)
        unlogged = unlogged or bool(is_unlogged)
    names = [each.name for each in relations.values() if each.kind == "sequence"]
    row = connection.execute("SELECT EXISTS (SELECT FROM pg_largeobject_metadata)").fetchone()
    return Content(relations, _read_sequences(connection, names), unlogged, bool(row and row[0]))


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
