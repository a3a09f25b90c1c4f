"""Making, cloning and dropping databases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cleanroom import ServiceHandle
from cleanroom_plugin_postgres._client import MAINTENANCE_DATABASE, connect

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
"""Settings whose stored value is a list that is quoted already."""

# What CREATE DATABASE ... TEMPLATE forgets, as statements to run for the clone.
_FORGOTTEN = """
WITH source AS (SELECT * FROM pg_database WHERE datname = %(source)s),
configuration AS (
    SELECT setrole, split_part(entry, '=', 1) AS key,
           substr(entry, strpos(entry, '=') + 1) AS value
    FROM pg_db_role_setting, source, unnest(setconfig) AS entry
    WHERE setdatabase = source.oid
),
granted AS (SELECT (aclexplode(datacl)).* FROM source)
SELECT CASE WHEN setrole = 0 THEN format('ALTER DATABASE %%I', %(target)s::text)
            ELSE format('ALTER ROLE %%I IN DATABASE %%I', pg_get_userbyid(setrole),
                        %(target)s::text) END
       || format(CASE WHEN key = ANY (%(lists)s) THEN ' SET %%I TO %%s' ELSE ' SET %%I TO %%L' END,
                 key, CASE WHEN value = '' AND key = ANY (%(lists)s) THEN '''''' ELSE value END)
FROM configuration
UNION ALL
SELECT format('REVOKE ALL ON DATABASE %%I FROM PUBLIC', %(target)s::text)
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


def quote(name: str) -> str:
    """Return a name as SQL reads it as it is."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as SQL reads it back, where backslashes mean nothing special."""
    return "'" + text.replace("'", "''") + "'"


def admin_connection(metadata: Mapping[str, str]) -> Connection:
    """Open a connection to the database from which others are made and dropped."""
    database = metadata.get("maintenance_database", MAINTENANCE_DATABASE)
    return connect(metadata, database)


def run(connection: Connection, statement: str) -> None:
    """Execute a statement put together from quoted names."""
    connection.execute(statement.encode())


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
    run(connection, f"DROP DATABASE IF EXISTS {quote(name)} WITH (FORCE)")


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


def seal_as_template(handle: ServiceHandle) -> str:
    """Keep the handle's database, as it is now, as a template. Returns the template's name."""
    source = handle.require("database_name")
    template = f"{source}_template"
    with admin_connection(handle.metadata) as connection:
        clone(connection, source, template)
        seal(connection, template)
    return template


def rename(connection: Connection, name: str, new_name: str) -> None:
    """Give a database, which nobody may be connected to, another name."""
    run(connection, f"ALTER DATABASE {quote(name)} RENAME TO {quote(new_name)}")
