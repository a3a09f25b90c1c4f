"""Talking to a Redis server: addresses and connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from cleanroom import ServiceError, ValidationError

if TYPE_CHECKING:
    import redis

DEFAULT_PORT = 6379


def make_url(host: str, port: int, username: str, password: str, database: int) -> str:
    """Return the URL of a database, as Redis clients read it."""
    who = f"{quote(username, safe='')}:{quote(password, safe='')}@" if password else ""
    host = f"[{host}]" if ":" in host else host
    return f"redis://{who}{host}:{port}/{database}"


def describe(
    host: str, port: int, username: str, password: str, database: int = 0
) -> dict[str, str]:
    """Return the metadata of a database at this address."""
    return {
        "host": host,
        "port": str(port),
        "username": username,
        "password": password,
        "database_name": str(database),
        "url": make_url(host, port, username, password, database),
    }


def parse_url(url: str, argument: str = "url") -> dict[str, str]:
    """Return the metadata of the database a `redis://` URL leads to.

    Raises:
        ValidationError: It is no such URL.
    """
    parts = urlsplit(url)
    number = parts.path.strip("/") or "0"
    if parts.scheme not in ("redis", "valkey") or not parts.hostname or not number.isdigit():
        raise ValidationError(
            f"{argument} is {url!r}", hint="it has the form redis://user:password@host:port/number"
        )
    return describe(
        parts.hostname,
        parts.port or DEFAULT_PORT,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        int(number),
    )


def connect(
    metadata: Mapping[str, str], *, timeout: float | None = None, **options: Any
) -> redis.Redis:
    """Return a client of a handle's database. It connects when it is first used.

    Args:
        metadata: Of the handle.
        timeout: Seconds for connecting and for each answer; unlimited when not given.
        options: Further arguments of `redis.Redis`.
    """
    import redis

    return redis.Redis(
        host=metadata["host"],
        port=int(metadata["port"]),
        username=metadata["username"] or None,
        password=metadata["password"] or None,
        db=int(metadata["database_name"]),
        socket_connect_timeout=timeout,
        socket_timeout=timeout,
        **options,
    )


def check_answers(metadata: Mapping[str, str], timeout: float) -> None:
    """Send an authenticated `PING`, which a server that is still loading refuses.

    Raises:
        Exception: It did not answer; of the client library's making.
        ServiceError: It is still loading.
    """
    with connect(metadata, timeout=timeout) as client:
        client.ping()
        loading = client.info("persistence").get("loading")
    if loading:
        raise ServiceError("it is loading its data set")


def server_facts(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return which server it is, `redis` or `valkey`, and its version."""
    with connect(metadata) as client:
        info = client.info("server")
    if "valkey_version" in info:
        return {"server": "valkey", "version": str(info["valkey_version"])}
    return {"server": "redis", "version": str(info["redis_version"])}
