"""The clone of a template that a server starts with, for the first test.

It is made while the data directory is prepared, and used only if what it is a clone of was provably
not touched since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cleanroom_plugin_postgres._databases import (
    PRISTINE,
    clone,
    literal,
    own_template,
    quote,
    run_all,
    shut_out,
)

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection

# Nobody has connected to a template that nobody may connect to and whose row is older than that of
# its clone: to allow that, to make it again, or to give it away is to write that row anew.
_OF_UNTOUCHED_TEMPLATE = """
SELECT spare.datname FROM pg_database AS template, pg_database AS spare
WHERE template.datname = {template} AND spare.datname = {spare}
      AND NOT template.datallowconn
      AND age(template.xmin) > age(spare.xmin)
      AND (SELECT jsonb_object_agg(setrole, setconfig) FROM pg_db_role_setting
           WHERE setdatabase = template.oid)
          IS NOT DISTINCT FROM
          (SELECT jsonb_object_agg(setrole, setconfig) FROM pg_db_role_setting
           WHERE setdatabase = spare.oid)
"""
# The name of an empty template's clone ends in the number of the transaction that gave it that
# name, the last one while the data directory was made. Nothing was written to the server since, but
# what set the password of this run, if one more transaction was given a number, and it did that.
_OF_UNTOUCHED_SERVER = """
SELECT datname FROM pg_database, pg_authid
WHERE starts_with(datname, {prefix}) AND rolname = current_user
      AND age(substr(datname, length({prefix}) + 1)::xid) = 2 AND age(pg_authid.xmin) = 1
"""
_NAME_BY_TRANSACTION = (
    "DO $cleanroom$ BEGIN EXECUTE format('ALTER DATABASE %I RENAME TO %I', {spare}, "
    "{spare} || '_' || txid_current() % 4294967296); END $cleanroom$"
)


def pristine_spare(database: str) -> list[str]:
    """Return the statements that make a clone of the empty template, for a server in one process.

    They have to be the last ones, as the clone is told by their being so.
    """
    name = _spare_name(database, own_template(database))
    return [
        f"CREATE DATABASE {quote(name)} ALLOW_CONNECTIONS false",
        _NAME_BY_TRANSACTION.format(spare=literal(name)),
    ]


def make_spare(connection: Connection, database: str, template: str) -> None:
    """Make the clone of a template that servers start with. Nobody can connect to it."""
    name = _spare_name(database, template)
    clone(connection, template, name)
    run_all(connection, shut_out(name))


def take_spare(connection: Connection, database: str, template: str, name: str) -> bool:
    """Give the clone that a server has started with another name, and open it.

    Args:
        connection: To the maintenance database.
        database: The service's own.
        template: What the clone must be of.
        name: What to call it.

    Returns:
        Whether that was possible. It is not, where there is none, where another process was
        faster, and where the template may not be what it was any more.
    """
    import psycopg

    if template == PRISTINE:
        prefix = f"{_spare_name(database, own_template(database))}_"
        find = _OF_UNTOUCHED_SERVER.format(prefix=literal(prefix))
    else:
        spare = _spare_name(database, template)
        find = _OF_UNTOUCHED_TEMPLATE.format(template=literal(template), spare=literal(spare))
    try:
        found = connection.execute(find.encode()).fetchall()
        if not found:
            return False
        run_all(
            connection,
            [
                f"ALTER DATABASE {quote(str(found[0][0]))} RENAME TO {quote(name)}",
                f"ALTER DATABASE {quote(name)} WITH ALLOW_CONNECTIONS true",
            ],
        )
    except psycopg.Error:
        return False
    return True


def _spare_name(database: str, template: str) -> str:
    """Return the name of the clone of a template that a server starts with, if it has one.

    Args:
        database: The service's own.
        template: What it is a clone of.
    """
    return f"{database}_spare{template.removeprefix(own_template(database))}"
