"""Dropping the tables, views and sequences that a test made, where nothing else is left of them.

That the schema is then what it was is proven before it is committed: in each catalogue that was
written to, no row is younger than the last clean state, and there are as many rows as in the
template. So none was added, changed or removed. What `CREATE INDEX`, `VACUUM` and `ANALYZE` change
without making a new row are a few columns of `pg_class`, which are compared.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

from cleanroom_plugin_postgres._databases import run_all

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection

_MADE = frozenset({"Heap INSERT", "Heap2 MULTI_INSERT"})
_IN_PLACE = "Heap INPLACE"
_CLASSES = "pg_class"
_CATALOGUES = (
    _CLASSES, "pg_attrdef", "pg_attribute", "pg_constraint", "pg_depend", "pg_description",
    "pg_index", "pg_inherits", "pg_partitioned_table", "pg_rewrite", "pg_sequence", "pg_statistic",
    "pg_trigger", "pg_type",
)  # fmt: skip
"""Those that making and dropping relations writes to."""
_OVERSIZED = {
    "pg_toast.pg_toast_2604": "pg_attrdef",
    "pg_toast.pg_toast_2606": "pg_constraint",
    "pg_toast.pg_toast_2609": "pg_description",
    "pg_toast.pg_toast_2618": "pg_rewrite",
    "pg_toast.pg_toast_2619": "pg_statistic",
}
"""Where large values of their rows are. A row that is the same has the same ones."""
_KINDS = {
    "v": "VIEW",
    "m": "MATERIALIZED VIEW",
    "r": "TABLE",
    "p": "TABLE",
    "f": "FOREIGN TABLE",
    "S": "SEQUENCE",
}
"""How relations are dropped, in this order. Of others there is nothing to drop by itself."""


class Schema(NamedTuple):
    """What a template's catalogues have.

    Attributes:
        relations: The oids of all relations.
        rows: How many rows each catalogue has.
        in_place: A digest of what is changed in `pg_class` without a new row.
        is_watched: Whether triggers fire when something is dropped, which would write.
    """

    relations: frozenset[int]
    rows: Mapping[str, int]
    in_place: str
    is_watched: bool


def read_schema(connection: Connection) -> Schema:
    """Read the catalogues of a fresh clone, which the connection is to."""
    counts = [f"(SELECT count(*) FROM pg_catalog.{name})" for name in _CATALOGUES]
    (row,), relations = run_all(
        connection,
        [
            f"SELECT ({_in_place(connection)}), EXISTS (SELECT FROM pg_catalog.pg_event_trigger "
            f"WHERE evtenabled IN ('A', 'R')), {', '.join(counts)}",
            "SELECT oid::bigint FROM pg_catalog.pg_class",
        ],
    )
    digest, is_watched, *rows = row
    return Schema(
        frozenset(int(str(oid)) for (oid,) in relations),
        {name: int(str(count)) for name, count in zip(_CATALOGUES, rows, strict=True)},
        str(digest),
        bool(is_watched),
    )


def may_be_undone(catalogues: Mapping[str, frozenset[str]]) -> bool:
    """Whether dropping relations may put these catalogues back, by how they were written to."""
    return not _MADE.isdisjoint(catalogues.get(_CLASSES, ())) and all(
        (name in _CATALOGUES or name in _OVERSIZED) and (name == _CLASSES or _IN_PLACE not in kinds)
        for name, kinds in catalogues.items()
    )


def drop_made(
    connection: Connection, schema: Schema, catalogues: Collection[str], added: str
) -> bool:
    """Drop the relations that were made, in a transaction that has begun.

    Args:
        connection: To the database.
        schema: Of the template.
        catalogues: Those that were written to.
        added: The condition that holds of rows which the template does not have.

    Returns:
        Whether the catalogues have now what they had. If not, it must not be committed.
    """
    if schema.is_watched:
        return False
    made: dict[str, list[str]] = {}
    found = connection.execute(
        "SELECT c.oid::bigint, relkind::text, relpersistence = 't', format('%I.%I', nspname, "
        "relname) FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n "
        f"ON n.oid = relnamespace WHERE {added.format(row='c.')}".encode()
    ).fetchall()
    for oid, kind, is_temporary, name in found:
        if is_temporary or int(str(oid)) in schema.relations:
            return False  # it is a session's own; or it was there, and is another one now
        made.setdefault(str(kind), []).append(str(name))
    drops = [
        # What goes with another one is gone by then.
        f"DROP {statement} IF EXISTS {', '.join(made[kind])} CASCADE"
        for kind, statement in _KINDS.items()
        if kind in made
    ]
    answers = run_all(connection, [*drops, _question(connection, schema, catalogues, added)])
    return answers[-1] == [(True,)]


def _question(
    connection: Connection, schema: Schema, catalogues: Collection[str], added: str
) -> str:
    """Ask whether catalogues have what they had."""
    touched = sorted({_OVERSIZED.get(name, name) for name in catalogues})
    young = added.format(row="")
    same = [
        f"(SELECT count(*) = {schema.rows[name]} AND count(*) FILTER (WHERE {young}) = 0"
        f" FROM pg_catalog.{name})"
        for name in touched
    ]
    return f"SELECT ({_in_place(connection)}) = '{schema.in_place}' AND {' AND '.join(same)}"


def _in_place(connection: Connection) -> str:
    columns = "oid, relpages, reltuples, relallvisible, relhasindex, relhasrules, relhastriggers"
    if connection.info.server_version >= 180000:
        columns += ", relallfrozen"
    return (
        f"SELECT sum(pg_catalog.hash_record_extended(({columns}, relfrozenxid, relminmxid), 0))"
        "::text FROM pg_catalog.pg_class"
    )
