"""Putting back the rows, sequences and large objects that were written to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from cleanroom_plugin_postgres._baseline import (
    NotUndoableError,
    SchemaChangedError,
    TemplateChangedError,
)
from cleanroom_plugin_postgres._content import Content, Relation, Sequence
from cleanroom_plugin_postgres._databases import literal, run_all
from cleanroom_plugin_postgres._made import Schema, drop_made, may_be_undone
from cleanroom_plugin_postgres._origin import Origin
from cleanroom_plugin_postgres._wal import CATALOGUE_MAP, TEMPLATE, UNTOLD, Writes

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection

_INSERTS = frozenset({"Heap INSERT", "Heap2 MULTI_INSERT", "Heap CONFIRM"})
_SEQUENCE = frozenset({"Sequence LOG"})
_IN_PLACE = frozenset({"Heap INPLACE"})
_OF_CATALOGUES = "pg_catalog."


class PutBack(NamedTuple):
    """What was done.

    Attributes:
        transaction: The id of the transaction that did it.
        position: Of the log, when nobody else could write to these tables any more.
        rows_only: Whether it changed rows, sequences and large objects, and no catalogue.
        copied: Bytes of rows that were copied in.
    """

    transaction: str
    position: str
    rows_only: bool
    copied: int


def put_back(
    connect: Callable[[], Connection],
    content: Content,
    origin: Origin,
    writes: Writes,
    added: str | None,
    *,
    drops: bool = False,
) -> PutBack:
    """Put back what was written to, in one transaction.

    Args:
        connect: Returns a connection to the database. Not called where nothing can be put back.
        content: What is in the template.
        origin: Knows its rows.
        writes: What was written to, and how.
        added: The condition that holds of rows that were added, see `Baseline.added`; `None` if
            that cannot be told.
        drops: Whether relations that were made may be dropped.

    Raises:
        NotUndoableError: Something else was written to as well.
    """
    touched, catalogues = _sorted(content, writes)
    if catalogues and not (drops and added is not None and may_be_undone(catalogues)):
        raise SchemaChangedError(_what_happened(catalogues))
    # Whoever has written to a table is waited for: what it adds would be seen by nobody later.
    tables = ", ".join(f"ONLY {each.name}" for each, _ in touched if each.kind != "sequence")
    lock = f"LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE"
    steps = ["BEGIN", lock] if tables else ["BEGIN"]
    steps.append("SELECT pg_catalog.pg_current_wal_insert_lsn()::text")
    at = len(steps) - 1
    copies: list[tuple[str, bytes]] = []
    for relation, kinds in touched:
        if relation.kind == "sequence":
            steps.append(_set_back(relation, content.sequences[relation.name]))
        elif relation.kind == "large objects":
            steps.append(_unlink_large_objects(content))
        else:
            added_only = added is not None and kinds <= _INSERTS
            steps.append(_delete(relation, added if added_only else None))
            if relation.size and not added_only:
                copies.append(origin.copy_in(relation))
    schema = origin.schema() if catalogues else None
    connection = connect()
    answers: list[list[tuple[object, ...]]] = []
    for statement, rows in copies:
        answers += run_all(connection, steps)
        steps.clear()
        with connection.cursor().copy(statement.encode()) as copy:
            copy.write(rows)
    if schema is not None and added is not None:
        answers += run_all(connection, steps)
        steps.clear()
        _drop_made(connection, schema, catalogues, added)
    answers += run_all(connection, [*steps, "SELECT pg_current_xact_id()::xid::text", "COMMIT"])
    return PutBack(
        transaction=str(answers[-2][0][0]),
        position=str(answers[at][0][0]),
        rows_only=not catalogues,
        copied=sum(len(rows) for _, rows in copies),
    )


def _drop_made(
    connection: Connection, schema: Schema, catalogues: Mapping[str, frozenset[str]], added: str
) -> None:
    from psycopg import Error

    try:
        if drop_made(connection, schema, catalogues, added):
            return
        run_all(connection, ["ROLLBACK"])
    except Error as exc:
        raise SchemaChangedError(_what_happened(catalogues)) from exc
    raise SchemaChangedError(_what_happened(catalogues))


def _sorted(
    content: Content, writes: Writes
) -> tuple[list[tuple[Relation, frozenset[str]]], dict[str, frozenset[str]]]:
    """The relations and the catalogues that were written to, with how.

    Refuses what cannot be put back.
    """
    if TEMPLATE in writes:
        raise TemplateChangedError("the template was written to")
    if UNTOLD in writes:
        raise NotUndoableError("an extension wrote in a way of its own")
    touched: list[tuple[Relation, frozenset[str]]] = []
    catalogues: dict[str, frozenset[str]] = {}
    is_rewritten = False
    for node, kinds in writes.items():
        relation = content.relations.get(node)
        if relation is None:
            # Sequences count rolled back or not; what made a new one was rolled back, or is seen.
            is_rewritten = is_rewritten or not kinds <= _SEQUENCE
        elif relation.kind == "catalogue":
            catalogues[relation.name.removeprefix(_OF_CATALOGUES)] = kinds
        elif relation.kind != "derived":
            touched.append((relation, kinds))
    if CATALOGUE_MAP in writes or (is_rewritten and not catalogues):
        raise SchemaChangedError(_what_happened(catalogues))
    for relation, _ in touched:
        if relation.problem:
            raise NotUndoableError(f"{relation.name} {relation.problem}")
    return touched, catalogues


def _what_happened(catalogues: Mapping[str, frozenset[str]]) -> str:
    """Say in few words what made these catalogues change."""
    changed = {name for name, kinds in catalogues.items() if not kinds <= _IN_PLACE}
    if changed == {"pg_class"}:
        return "a table was truncated, rewritten or altered"
    if changed <= {"pg_statistic", "pg_statistic_ext_data", "pg_class"} and catalogues:
        return "a table was vacuumed or analysed"
    return "the schema was changed"


def _set_back(relation: Relation, sequence: Sequence) -> str:
    called = str(sequence.is_called).lower()
    return f"SELECT pg_catalog.setval({literal(relation.name)}, {sequence.value}, {called})"


def _delete(table: Relation, added: str | None) -> str:
    """The statement that deletes the rows that were added, or all of them."""
    if table.size == 0 or added is None:
        return f"DELETE FROM ONLY {table.name}"
    return f"DELETE FROM ONLY {table.name} WHERE {added.format(row='')}"


def _unlink_large_objects(content: Content) -> str:
    if content.large_objects:
        raise NotUndoableError("large objects were changed, and the template has some")
    return "SELECT count(pg_catalog.lo_unlink(oid)) FROM pg_catalog.pg_largeobject_metadata"
