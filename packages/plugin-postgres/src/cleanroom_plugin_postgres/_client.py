"""Talking to a PostgreSQL server: addresses, connections, and what to install for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from cleanroom import ConfigurationError, ServiceError, ValidationError

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[object, ...]]

MAINTENANCE_DATABASE = "postgres"

_SQLALCHEMY_DRIVERS = ("psycopg", "psycopg2", "asyncpg", "pg8000", "psycopg_async")


def load_psycopg() -> None:
    """Import psycopg, so that the first connection need not.

    Raises:
        ConfigurationError: It is not usable here; says what to install.
    """
    try:
        import psycopg  # noqa: F401
    except ImportError as exc:
        raise ConfigurationError(
            f"psycopg cannot be used here: {str(exc).splitlines()[0]}",
            plugin="postgres",
            hint="it needs libpq: pip install 'cleanroom-plugin-postgres[embedded]' or "
            "'psycopg[binary]', or install libpq from your system's packages",
        ) from exc


def make_url(
    host: str, port: int, user: str, password: str, database: str, scheme: str = "postgresql"
) -> str:
    """Return the URL of a database, in the form libpq and most drivers read."""
    secret = f":{quote(password, safe='')}" if password else ""
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{quote(user, safe='')}{secret}@{host}:{port}/{quote(database, safe='')}"


def url_for(metadata: Mapping[str, str], driver: str) -> str:
    """Return the URL of a database as this driver or library reads it.

    Args:
        metadata: Of a handle of a database.
        driver: `psycopg`, `psycopg2`, `asyncpg` or `pg8000` for SQLAlchemy's form of URL
            (`postgresql+asyncpg://...`), `libpq` for the plain one, `jdbc` for Java's.

    Raises:
        ValidationError: The driver is not known.
    """
    parts = (
        metadata["host"], int(metadata["port"]), metadata["username"], metadata["password"],
        metadata["database_name"],
    )  # fmt: skip
    if driver == "libpq":
        return make_url(*parts)
    if driver in _SQLALCHEMY_DRIVERS:
        return make_url(*parts, scheme=f"postgresql+{driver}")
    if driver == "jdbc":
        host, port, user, password, database = (quote(str(part), safe="") for part in parts)
        return f"jdbc:postgresql://{host}:{port}/{database}?user={user}&password={password}"
    raise ValidationError(
        f"driver is {driver!r}",
        hint=f"known are {', '.join((*_SQLALCHEMY_DRIVERS, 'libpq', 'jdbc'))}",
    )


def parse_url(url: str) -> dict[str, str]:
    """Return host, port, username, password and database name of a `postgresql://` URL.

    Raises:
        ValidationError: It is no such URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres") or not parts.hostname:
        raise ValidationError(
            f"url is {url!r}", hint="it has the form postgresql://user:password@host:port/database"
        )
    return {
        "host": parts.hostname,
        "port": str(parts.port or 5432),
        "username": unquote(parts.username or "postgres"),
        "password": unquote(parts.password or ""),
        "database_name": unquote(parts.path.lstrip("/")) or MAINTENANCE_DATABASE,
    }


def connect(
    metadata: Mapping[str, str],
    database: str | None = None,
    *,
    timeout: float = 10.0,
    autocommit: bool = True,
) -> Connection:
    """Open a connection with the credentials of a handle.

    Args:
        metadata: Of the handle.
        database: The database; the handle's own when not given.
        timeout: Seconds to wait for the connection.
        autocommit: Whether each statement is a transaction of its own.
    """
    load_psycopg()
    import psycopg

    return psycopg.connect(
        host=metadata["host"],
        port=metadata["port"],
        user=metadata["username"],
        password=metadata["password"] or None,
        dbname=database or metadata["database_name"],
        connect_timeout=max(1, round(timeout)),
        application_name="cleanroom",
        autocommit=autocommit,
    )


def check_answers(metadata: Mapping[str, str], timeout: float) -> None:
    """Ask the server `SELECT 1`, authenticated, over the address that tests use.

    Raises:
        Exception: It did not answer; of psycopg's making.
        ServiceError: It answered something else.
    """
    with connect(metadata, timeout=timeout) as connection:
        row = connection.execute("SELECT 1").fetchone()
    if row != (1,):
        raise ServiceError(f"SELECT 1 answered {row!r}")


def server_version(connection: Connection) -> str:
    """Return the version the server states, for instance `18.6`."""
    return (connection.info.parameter_status("server_version") or "").split(" ", 1)[0]


def describe(host: str, port: int, user: str, password: str, database: str) -> dict[str, str]:
    """Return the metadata of a database at this address."""
    return {
        "host": host,
        "port": str(port),
        "username": user,
        "password": password,
        "database_name": database,
        "url": make_url(host, port, user, password, database),
    }
