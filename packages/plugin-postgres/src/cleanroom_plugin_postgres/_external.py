"""A PostgreSQL server that somebody else runs: isolated in, and left as it was found."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cleanroom import ServiceError, ServiceHandle
from cleanroom_plugin_postgres import _client
from cleanroom_plugin_postgres._databases import admin_connection, drop, quote, run, unseal
from cleanroom_runtime import current_run

_LONGEST_NAME = 24
"""Characters of the name asked for; the run's id and what isolation adds come behind."""


def attach(
    url: str, service_id: str, database_name: str, service: str, timeout: float
) -> dict[str, str]:
    """Make a database of this run's own. Its removal is registered before it exists.

    Args:
        url: The server's URL, with a user that may create databases.
        service_id: The service's id, which makes the names of its databases unique.
        database_name: What the database is to be called; the id is added.
        service: The service's name, for messages.
        timeout: Seconds within which the server must let us in.

    Raises:
        ServiceError: The server cannot be reached, or lets this user in or make databases not.
    """
    server = _client.parse_url(url)
    name = f"{database_name[:_LONGEST_NAME]}_{service_id.replace('-', '_')}"
    metadata = _client.describe(
        server["host"], int(server["port"]), server["username"], server["password"], name,
        server["parameters"],
    )  # fmt: skip
    metadata["maintenance_database"] = server["database_name"]
    current_run().request(
        "register",
        id=service_id,
        helper={
            "argv": [sys.executable, "-m", "cleanroom_plugin_postgres._external"],
            "input": ServiceHandle(service_id, service, metadata).to_json(),
        },
    )
    with _explained(metadata), admin_connection(metadata, timeout) as connection:
        run(connection, f"CREATE DATABASE {quote(name)}")
    return metadata


def detach(metadata: Mapping[str, str]) -> None:
    """Drop the service's database and all that were made from it.

    Raises:
        ServiceError: The server cannot be reached any more, or refuses.
    """
    with _explained(metadata), admin_connection(metadata) as connection:
        names = connection.execute(
            "SELECT datname, datistemplate FROM pg_database WHERE starts_with(datname, %s)",
            [metadata["database_name"]],
        ).fetchall()
        for name, is_template in names:
            if is_template:
                unseal(connection, str(name))
            drop(connection, str(name))


@contextmanager
def _explained(metadata: Mapping[str, str]) -> Iterator[None]:
    """Raise what the server says as a `ServiceError` with advice."""
    _client.load_psycopg()
    import psycopg

    server = f"the server at {metadata['host']}:{metadata['port']}"
    user = metadata["username"]
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as exc:
        raise ServiceError(
            f"{server} does not let user {user!r} make and drop databases: {_first_line(exc)}",
            hint=f"as its administrator: ALTER ROLE {quote(user)} CREATEDB",
        ) from exc
    except psycopg.OperationalError as exc:
        raise ServiceError(
            f"{server} cannot be used: {_first_line(exc)}",
            hint="check host, port, user, password and database of the URL, and that it runs",
        ) from exc
    except psycopg.Error as exc:
        raise ServiceError(f"{server} refused: {_first_line(exc)}") from exc


def _first_line(exc: Exception) -> str:
    return str(exc).strip().partition("\n")[0]


if __name__ == "__main__":  # run by the warden, when the run ended without detaching
    detach(ServiceHandle.from_json(sys.stdin.read()).metadata)
