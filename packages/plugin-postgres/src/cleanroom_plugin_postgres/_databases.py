"""Making, cloning and dropping databases."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from cleanroom import ServiceHandle
from cleanroom_plugin_postgres._client import MAINTENANCE_DATABASE, PATIENCE, connect

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection

PRISTINE = "template1"
"""The template of databases where nothing was set up for them to start with."""

_LIST_SETTINGS = (
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
)
"""Settings whose stored value is a list of names, quoted where they have to be."""

# What CREATE DATABASE ... TEMPLATE forgets, as statements to run for the clone: first the owner,
# because grants are its own to make.
_FORGOTTEN = """
WITH source AS (SELECT * FROM pg_database WHERE datname = %(source)s),
configuration AS (
    SELECT setrole, split_part(entry, '=', 1) AS key,
           substr(entry, strpos(entry, '=') + 1) AS value
    FROM pg_db_role_setting, source, unnest(setconfig) AS entry
    WHERE setdatabase = source.oid
),
granted AS (SELECT (aclexplode(datacl)).* FROM source)
SELECT format('ALTER DATABASE %%I OWNER TO %%I', %(target)s::text, pg_get_userbyid(datdba))
FROM source WHERE pg_get_userbyid(datdba) <> current_user
UNION ALL
SELECT CASE WHEN setrole = 0 THEN format('ALTER DATABASE %%I', %(target)s::text)
            ELSE format('ALTER ROLE %%I IN DATABASE %%I', pg_get_userbyid(setrole),
                        %(target)s::text) END
       || format(' SET %%I TO ', key)
       || CASE WHEN key = ANY (%(lists)s) THEN coalesce(
              (SELECT string_agg(
                   quote_literal(coalesce(replace(part[1], '""', '"'), part[2])), ', ')
               FROM regexp_matches(value, '"((?:[^"]|"")*)"|([^, ]+)', 'g') AS part), '''''')
          ELSE quote_literal(value) END
FROM configuration
UNION ALL
SELECT format('REVOKE ALL ON DATABASE %%I FROM PUBLIC, %%I', %(target)s::text,
              pg_get_userbyid(datdba))
FROM source WHERE datacl IS NOT NULL
UNION ALL
SELECT format('GRANT %%s ON DATABASE %%I TO %%s', privilege_type, %(target)s::text,
              CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)
       || CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
FROM granted
UNION ALL
SELECT format('ALTER DATABASE %%I CONNECTION LIMIT %%s', %(target)s::text, datconnlimit)
FROM source WHERE datconnlimit >= 0
"""


# What keeps a database from being dropped and can be told from within only.
_KEEPERS = """
SELECT ARRAY[format('ROLLBACK PREPARED %L', gid)]
FROM pg_prepared_xacts WHERE database = current_database()
UNION ALL
SELECT ARRAY[format('ALTER SUBSCRIPTION %I DISABLE', subname),
             format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', subname),
             format('DROP SUBSCRIPTION %I', subname)]
FROM pg_subscription AS s JOIN pg_database AS d ON d.oid = s.subdbid
WHERE d.datname = current_database()
"""
_OUR_SETTINGS = (
    "client_encoding = 'UTF8'",
    "standard_conforming_strings = on",
    "default_transaction_isolation = 'read committed'",
    "default_transaction_read_only = off",
    "row_security = off",
    "statement_timeout = 0",
    "lock_timeout = 0",
    "idle_in_transaction_session_timeout = 0",
    "plan_cache_mode = force_generic_plan",
    "jit = off",
)


def quote(name: str) -> str:
    """Return a name as SQL reads it as it is."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as SQL reads it back, where backslashes mean nothing special."""
    return "'" + text.replace("'", "''") + "'"


def admin_connection(metadata: Mapping[str, str], timeout: float = PATIENCE) -> Connection:
    """Open a connection to the database from which others are made and dropped.

    Args:
        metadata: Of a handle of the server.
        timeout: Seconds to wait for it.
    """
    database = metadata.get("maintenance_database", MAINTENANCE_DATABASE)
    return connect(metadata, database, timeout=timeout, by_socket=True)


def settle(connection: Connection) -> Connection:
    """Make a connection of ours work whatever server, database and role set for theirs."""
    connection.prepare_threshold = None  # with psycopg's, those of ours would be dropped too
    version = connection.info.server_version
    statements = ["SET ROLE NONE", *(f"SET {setting}" for setting in _OUR_SETTINGS)]
    if version >= 140000:
        statements.append("SET idle_session_timeout = 0")
    if version >= 170000:
        statements.append("SET transaction_timeout = 0")
    run_all(connection, statements)
    return connection


def run(connection: Connection, statement: str) -> None:
    """Execute a statement put together from quoted names."""
    connection.execute(statement.encode())


def run_all(connection: Connection, statements: Sequence[str]) -> list[list[tuple[object, ...]]]:
    """Execute statements put together from quoted names, asked at once. Returns the rows of each.

    They are one transaction, unless they begin and end some of their own.
    """
    cursor = connection.execute("; ".join(statements).encode())
    rows = [cursor.fetchall() if cursor.description else []]
    while cursor.nextset():
        rows.append(cursor.fetchall() if cursor.description else [])
    return rows


def unused_name(connection: Connection, prefix: str) -> str:
    """Return the first of `prefix_1`, `prefix_2`, ... that no database has."""
    names = {name for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()}
    return next(name for n in itertools.count(1) if (name := f"{prefix}_{n}") not in names)


def clone(connection: Connection, source: str, target: str) -> None:
    """Make a database just like another one, which nobody may be connected to.

    Carries what `CREATE DATABASE ... TEMPLATE` forgets: settings and grants of the database.
    """
    fast = "STRATEGY FILE_COPY" if connection.info.server_version >= 150000 else ""
    run(connection, f"CREATE DATABASE {quote(target)} TEMPLATE {quote(source)} {fast}")
    if source != PRISTINE:
        carry_over(connection, source, target)


def carry_over(connection: Connection, source: str, target: str) -> None:
    """Give a clone the settings and grants of what it was cloned from."""
    values = {"source": source, "target": target, "lists": list(_LIST_SETTINGS)}
    for (statement,) in connection.execute(_FORGOTTEN, values).fetchall():
        run(connection, str(statement))


def drop(connection: Connection, name: str) -> None:
    """Drop a database, ending whatever is connected to it. One that is gone is fine."""
    from psycopg import errors

    statement = f"DROP DATABASE IF EXISTS {quote(name)} WITH (FORCE)"
    try:
        run(connection, statement)
    except (errors.ObjectInUse, errors.WrongObjectType):
        free(connection, name)
        run(connection, statement)


def free(connection: Connection, name: str) -> None:
    """Rid a database of all that keeps it from being dropped or renamed.

    Sessions are ended and kept out. Prepared transactions are rolled back; subscriptions are
    dropped, and what they had reserved at their publishers stays there.
    """
    import psycopg

    unseal(connection, name)
    info = connection.info
    with psycopg.connect(
        info.dsn, password=info.password or None, dbname=name, autocommit=True
    ) as inside:
        settle(inside)
        for statements in inside.execute(_KEEPERS).fetchall():
            for statement in cast("list[str]", statements[0]):
                run(inside, statement)
    run(connection, f"ALTER DATABASE {quote(name)} WITH ALLOW_CONNECTIONS false")
    end_sessions(connection, name)
    connection.execute(
        "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots "
        "WHERE database = %s AND active_pid IS NOT NULL",
        [name],
    )


def shut_out(name: str) -> list[str]:
    """Return the statements by which nobody can connect to a database any more."""
    return [f"ALTER DATABASE {quote(name)} WITH ALLOW_CONNECTIONS false"]


def end_sessions(connection: Connection, name: str) -> int:
    """End every session in a database and return how many there were."""
    ended = connection.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = %s AND pid <> pg_backend_pid()",
        [name],
    )
    return len(ended.fetchall())


def seal(connection: Connection, name: str) -> None:
    """Make a database a template nobody can connect to, write to, or drop by mistake."""
    end_sessions(connection, name)
    run(connection, f"ALTER DATABASE {quote(name)} WITH ALLOW_CONNECTIONS false IS_TEMPLATE true")


def unseal(connection: Connection, name: str) -> None:
    """Make a template a database again, so that it can be dropped."""
    run(connection, f"ALTER DATABASE {quote(name)} WITH ALLOW_CONNECTIONS true IS_TEMPLATE false")


def own_template(database: str) -> str:
    """Return the name of the template that holds a service's own database as it was at first."""
    return f"{database}_template"


def template_name(database: str, suffix: str) -> str:
    """Return a name for a further template of a service with this database."""
    return f"{own_template(database)}_{suffix}"


def seal_as_template(handle: ServiceHandle) -> str:
    """Keep the handle's database, as it is now, as a template. Returns the template's name."""
    source = handle.require("database_name")
    template = own_template(source)
    with admin_connection(handle.metadata) as connection:
        clone(connection, source, template)
        seal(connection, template)
    return template


def rename(connection: Connection, name: str, new_name: str) -> None:
    """Give a database another name, ending whatever is connected to it."""
    free(connection, name)
    run(connection, f"ALTER DATABASE {quote(name)} RENAME TO {quote(new_name)}")
    unseal(connection, new_name)
