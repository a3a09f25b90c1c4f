"""Talking to a PostgreSQL server: addresses, connections, and what to install for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from cleanroom import ConfigurationError, ServiceError, ValidationError

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[object, ...]]

DEFAULT_PORT = 5432
MAINTENANCE_DATABASE = "postgres"
PATIENCE = 10.0
"""Seconds to wait for a connection, unless said."""

_SQLALCHEMY_DRIVERS = ("psycopg", "psycopg2", "asyncpg", "pg8000", "psycopg_async")


def load_psycopg() -> None:
    """Import psycopg, so that the first connection need not.

    Raises:
        ConfigurationError: It is not usable here; says what to install.
    """
    try:
        import psycopg  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as exc:
        raise ConfigurationError(
            f"psycopg cannot be used here: {str(exc).splitlines()[0]}",
            plugin="postgres",
            hint="it needs libpq: pip install 'cleanroom-plugin-postgres[embedded]' or "
            "'psycopg[binary]', or install libpq from your system's packages",
        ) from exc


def make_url(
    host: str,
    port: int,
    user: str,
    password: str,
    database: str,
    *,
    scheme: str = "postgresql",
    parameters: str = "",
) -> str:
    """Return the URL of a database, in the form libpq and most drivers read."""
    secret = f":{quote(password, safe='')}" if password else ""
    host = f"[{host}]" if ":" in host else host
    url = f"{scheme}://{quote(user, safe='')}{secret}@{host}:{port}/{quote(database, safe='')}"
    return f"{url}?{parameters}" if parameters else url


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
    parameters = metadata.get("parameters", "")
    if driver == "libpq":
        return make_url(*parts, parameters=parameters)
    if driver in _SQLALCHEMY_DRIVERS:
        known = parameters if driver.startswith("psycopg") else ""
        return make_url(*parts, scheme=f"postgresql+{driver}", parameters=known)
    if driver == "jdbc":
        host, port, user, password, database = (quote(str(part), safe="") for part in parts)
        host = f"[{parts[0]}]" if ":" in parts[0] else host
        added = f"&{parameters}" if parameters else ""
        return f"jdbc:postgresql://{host}:{port}/{database}?user={user}&password={password}{added}"
    raise ValidationError(
        f"driver is {driver!r}",
        hint=f"known are {', '.join((*_SQLALCHEMY_DRIVERS, 'libpq', 'jdbc'))}",
    )


def parse_url(url: str) -> dict[str, str]:
    """Return host, port, username, password, database name and parameters of a `postgresql://` URL.

    What stands among the parameters wins, as in libpq.
    """
    parts = urlsplit(url)
    parameters = _read_parameters(parts.query)
    return {
        "host": parameters.pop("host", parts.hostname or ""),
        "port": parameters.pop("port", str(parts.port or DEFAULT_PORT)),
        "username": parameters.pop("user", unquote(parts.username or "postgres")),
        "password": parameters.pop("password", unquote(parts.password or "")),
        "database_name": parameters.pop("dbname", unquote(parts.path.lstrip("/")))
        or MAINTENANCE_DATABASE,
        "parameters": "&".join(f"{key}={quote(parameters[key], safe='')}" for key in parameters),
    }


def _read_parameters(query: str) -> dict[str, str]:
    """Read the part of a URL behind the question mark as libpq does: a plus is a plus."""
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return {unquote(key): unquote(value) for key, _, value in pairs}


def connect(
    metadata: Mapping[str, str],
    database: str | None = None,
    *,
    timeout: float = PATIENCE,
    autocommit: bool = True,
    by_socket: bool = False,
) -> Connection:
    """Open a connection with the credentials of a handle.

    Args:
        metadata: Of the handle.
        database: The database; the handle's own when not given.
        timeout: Seconds to wait for the connection.
        autocommit: Whether each statement is a transaction of its own.
        by_socket: Whether to take the server's unix socket where the handle names one: it is
            reached sooner than a port, and asks for no password.
    """
    load_psycopg()
    import psycopg
    from psycopg.conninfo import make_conninfo

    parameters = _read_parameters(metadata.get("parameters", ""))
    return psycopg.connect(
        make_conninfo("", **parameters) if parameters else "",
        host=(by_socket and metadata.get("socket_directory")) or metadata["host"],
        port=metadata["port"],
        user=metadata["username"],
        password=metadata["password"] or None,
        dbname=database or metadata["database_name"],
        connect_timeout=max(1, round(timeout)),
        application_name="cleanroom",
        autocommit=autocommit,
    )


def check_answers(metadata: Mapping[str, str], timeout: float, database: str | None = None) -> None:
    """Ask the server `SELECT 1`, authenticated, over the address that tests use.

    Args:
        metadata: Of a handle of the server.
        timeout: Seconds after which to give up.
        database: The database to ask; the handle's own when not given.

    Raises:
        Exception: It did not answer; of psycopg's making.
        ServiceError: It answered something else.
    """
    with connect(metadata, database, timeout=timeout) as connection:
        row = connection.execute("SELECT 1").fetchone()
    if row != (1,):
        raise ServiceError(f"SELECT 1 answered {row!r}")


def server_version(connection: Connection) -> str:
    """Return the version the server states, for instance `18.6`."""
    return (connection.info.parameter_status("server_version") or "").split(" ", 1)[0]


def describe(
    host: str, port: int, user: str, password: str, database: str, parameters: str = ""
) -> dict[str, str]:
    """Return the metadata of a database at this address."""
    added = {"parameters": parameters} if parameters else {}
    return {
        "host": host,
        "port": str(port),
        "username": user,
        "password": password,
        "database_name": database,
        "url": make_url(host, port, user, password, database, parameters=parameters),
        **added,
    }
