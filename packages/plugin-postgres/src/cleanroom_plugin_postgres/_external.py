"""A PostgreSQL server that somebody else runs: isolated in, and left as it was found."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from cleanroom import ServiceHandle
from cleanroom_plugin_postgres import _client
from cleanroom_plugin_postgres._databases import admin_connection, drop, quote, run, unseal
from cleanroom_runtime import current_run


def attach(url: str, service_id: str, database_name: str, service: str) -> dict[str, str]:
    """Make a database of this run's own. Its removal is registered before it exists.

    Args:
        url: The server's URL, with a user that may create databases.
        service_id: The service's id, which makes the names of its databases unique.
        database_name: What the database is to be called; the id is added.
        service: The service's name, for messages.
    """
    server = _client.parse_url(url)
    prefix = f"{database_name}_{service_id.replace('-', '_')}"
    metadata = _client.describe(
        server["host"], int(server["port"]), server["username"], server["password"], prefix
    )
    metadata["maintenance_database"] = server["database_name"]
    current_run().request(
        "register",
        helper={
            "argv": [sys.executable, "-m", "cleanroom_plugin_postgres._external"],
            "input": ServiceHandle(service_id, service, metadata).to_json(),
        },
    )
    with admin_connection(metadata) as connection:
        run(connection, f"CREATE DATABASE {quote(prefix)}")
    return metadata


def detach(metadata: Mapping[str, str]) -> None:
    """Drop the service's database and all that were made from it."""
    prefix = metadata["database_name"]
    with admin_connection(metadata) as connection:
        names = connection.execute(
            "SELECT datname, datistemplate FROM pg_database WHERE starts_with(datname, %s)",
            [prefix],
        ).fetchall()
        for name, is_template in names:
            if is_template:
                unseal(connection, str(name))
            drop(connection, str(name))


if __name__ == "__main__":  # run by the warden, when the run ended without detaching
    detach(ServiceHandle.from_json(sys.stdin.read()).metadata)
