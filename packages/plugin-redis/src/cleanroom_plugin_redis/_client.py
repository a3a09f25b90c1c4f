"""Talking to a Redis server: addresses, connections, and what errors mean."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from cleanroom import ServiceError, ValidationError

if TYPE_CHECKING:
    import redis

    from cleanroom_runtime import Endpoint

DEFAULT_PORT = 6379
PATIENCE = 5.0
"""Seconds to wait for an answer, unless said."""


def make_url(host: str, port: int, username: str, password: str, database: int) -> str:
    """Return the URL of a database, as Redis clients read it."""
    who = f"{quote(username, safe='')}:{quote(password, safe='')}@" if password else ""
    host = f"[{host}]" if ":" in host else host
    return f"redis://{who}{host}:{port}/{database}"


def describe(host: str, port: int, password: str) -> dict[str, str]:
    """Return the metadata of database 0 at this address, for the default user."""
    return {
        "host": host,
        "port": str(port),
        "username": "",
        "password": password,
        "database_name": "0",
        "url": make_url(host, port, "", password, 0),
    }


def parse_url(url: str, argument: str = "url") -> dict[str, str]:
    """Return the metadata of the database that a `redis://` or `rediss://` URL leads to.

    Raises:
        ValidationError: It is no such URL.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    number = query.pop("db", "") or parts.path.strip("/") or "0"
    if not number.isdecimal():
        raise ValidationError(
            f"{argument} leads to database {number!r}",
            hint="databases have numbers: redis://user:password@host:port/number",
        )
    scheme = "rediss" if parts.scheme in ("rediss", "valkeys") else "redis"
    whole = parts._replace(scheme=scheme, path=f"/{number}", query=urlencode(query), fragment="")
    return {
        "host": parts.hostname or "",
        "port": str(parts.port or DEFAULT_PORT),
        "username": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "database_name": number,
        "url": whole.geturl(),
    }


def at_database(metadata: Mapping[str, str], number: int) -> dict[str, str]:
    """Return the metadata of another database of the same server."""
    url = urlsplit(metadata["url"])._replace(path=f"/{number}").geturl()
    return {**metadata, "database_name": str(number), "url": url}


def connect(metadata: Mapping[str, str], **options: Any) -> redis.Redis:
    """Return a client of a handle's database. It connects when it is first used.

    Args:
        metadata: Of the handle.
        options: Arguments of `redis.Redis`, which win over what the URL says.
    """
    import redis
    from redis import connection

    read: Callable[[str], dict[str, Any]] = connection.parse_url
    facts = dict(read(metadata["url"]))
    if facts.pop("connection_class", None) is not None:
        facts["ssl"] = True
    return redis.Redis(**{**_without_introductions(), **facts, **options})


@functools.cache
def _without_introductions() -> dict[str, Any]:
    """What keeps a client from telling the server about itself, which takes most of connecting."""
    import redis

    known = inspect.signature(redis.Redis).parameters
    if "driver_info" in known:
        return {"driver_info": None}
    return {name: None for name in ("lib_name", "lib_version") if name in known}


def connect_once(metadata: Mapping[str, str], timeout: float = PATIENCE) -> redis.Redis:
    """Return a client that says at once what goes wrong, where others try again for seconds."""
    return connect(metadata, **_at_once(timeout))


def _at_once(timeout: float) -> dict[str, Any]:
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return {
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": timeout,
        "socket_timeout": timeout,
    }


def check_answers(metadata: Mapping[str, str], timeout: float) -> None:
    """Send an authenticated `PING`, and ask whether the server still loads its data.

    Raises:
        ServiceError: It did not answer as it should; says why.
    """
    from redis.exceptions import NoPermissionError

    with explained(metadata), connect_once(metadata, timeout) as client:
        client.ping()
        try:
            loading = client.info("persistence").get("loading")
        except NoPermissionError:
            return  # who answers `PING` has loaded all but what comes from another server
    if loading:
        raise _still_loading(metadata)


def open_port(endpoint: Endpoint, socket: str, password: str, timeout: float) -> None:
    """Give a server that listens at its private socket alone its password and its port.

    Where the port is taken, the server is ended, as it would have ended if it had begun with it.

    Args:
        endpoint: The server's.
        socket: The socket's name, in the server's folder.
        password: Of the default user, whom everybody is who does not say otherwise.
        timeout: Seconds after which to give up.

    Raises:
        Exception: It did not answer, or refused; of the client library's making.
    """
    import redis
    from redis import exceptions

    assert endpoint.socket_directory is not None  # noqa: S101 - it is a process's
    path = str(endpoint.socket_directory / socket)
    with redis.Redis(unix_socket_path=path, **_at_once(timeout)) as client:
        try:
            client.execute_command("CONFIG SET", "requirepass", password, "port", endpoint.port)
        except exceptions.AuthenticationError:
            pass  # an earlier question was answered too late
        except exceptions.ResponseError:
            with contextlib.suppress(exceptions.ConnectionError):
                client.shutdown(nosave=True)
            raise


def server_facts(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return which server it is, `redis` or `valkey`, and its version."""
    with explained(metadata), connect_once(metadata) as client:
        info = client.info("server")
    if "valkey_version" in info:
        return {"server": "valkey", "version": str(info["valkey_version"])}
    return {"server": "redis", "version": str(info["redis_version"])}


@contextmanager
def explained(metadata: Mapping[str, str]) -> Iterator[None]:
    """Raise what the server or the client library says as a `ServiceError` with advice."""
    from redis import exceptions

    server = f"the server at {metadata['host']}:{metadata['port']}"
    try:
        yield
    except exceptions.AuthenticationError as exc:
        raise ServiceError(
            f"{server} asks for another password or user: {exc}", hint=_who(metadata)
        ) from exc
    except exceptions.BusyLoadingError as exc:
        raise _still_loading(metadata) from exc
    except exceptions.OutOfMemoryError as exc:
        raise ServiceError(
            f"{server} is out of memory: {exc}",
            hint="raise its setting maxmemory, or remove what is not needed",
        ) from exc
    except exceptions.NoPermissionError as exc:
        raise ServiceError(
            f"{server} does not allow it: {exc}", hint="allow the user that in the server's ACL"
        ) from exc
    except (exceptions.ConnectionError, exceptions.TimeoutError) as exc:
        raise ServiceError(
            f"{server} cannot be reached: {type(exc).__name__}: {exc}",
            hint="check that it runs, and its host and port",
        ) from exc
    except exceptions.RedisError as exc:
        raise ServiceError(f"{server} refused: {exc}") from exc


def _still_loading(metadata: Mapping[str, str]) -> ServiceError:
    return ServiceError(
        f"the server at {metadata['host']}:{metadata['port']} is loading its data",
        hint="it answers when it has loaded all: give it less data, or a longer start_timeout",
    )


def _who(metadata: Mapping[str, str]) -> str:
    if metadata.get("backend") == "external" or "backend" not in metadata:
        return "check user and password of the URL"
    return "give with_password the one that the server or its image was set up with"
