"""A Redis server that somebody else runs: only empty databases of it are used.

A hash in its database 0 says which of its databases are in use by whom, so that several runs on
one server do not meet. It is gone when the last of them has ended.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from cleanroom import ServiceHandle
from cleanroom_plugin_redis._client import at_database, connect_once, explained, parse_url

if TYPE_CHECKING:
    import redis

LEASES = "cleanroom:leases"
"""Key of the hash: number of a database to the id of the service that uses it."""

_CHECKING = "checking for "
"""Before the id while its database is not known to be empty, so that nobody empties it."""
_USUAL_DATABASES = 16


def attach(url: str, service_id: str, timeout: float) -> dict[str, str]:
    """Return the metadata of the server. Nothing is used of it yet.

    Args:
        url: The server's URL.
        service_id: The service's id.
        timeout: Seconds within which the server must answer.

    Raises:
        ServiceError: It cannot be reached or does not let this user in.
    """
    from redis.exceptions import BusyLoadingError

    metadata = {**parse_url(url), "service_id": service_id}
    with explained(metadata), connect_once(metadata, timeout) as client, suppress(BusyLoadingError):
        client.ping()  # what is loading is waited for
    return metadata


def databases(metadata: Mapping[str, str]) -> int:
    """Return how many databases the server has, or may have where it does not say."""
    from redis.exceptions import ResponseError

    with explained(metadata), connect_once(metadata) as client:
        try:
            settings = cast("Mapping[str, str]", client.config_get("databases"))
        except ResponseError:  # hosted servers seldom allow it
            return _USUAL_DATABASES
    return int(settings.get("databases", _USUAL_DATABASES))


def claim(metadata: Mapping[str, str], number: int) -> bool:
    """Claim a database, if it is empty and nobody has it; also one that this service had before.

    Raises:
        ServiceError: The server cannot be reached, or refuses.
    """
    mine = metadata["service_id"]
    with explained(metadata), _leases(metadata) as client:
        if not client.hsetnx(LEASES, str(number), _CHECKING + mine):
            holder = _text(client.hget(LEASES, str(number)))
            if holder != _CHECKING + mine:
                return holder == mine
        if not _is_empty(metadata, number):
            client.hdel(LEASES, str(number))
            return False
        client.hset(LEASES, str(number), mine)
        return True


def detach(metadata: Mapping[str, str]) -> None:
    """Empty and give up the databases that the service has used. Doing it twice is fine.

    Raises:
        ServiceError: The server cannot be reached, or refuses.
    """
    mine = metadata["service_id"]
    with explained(metadata), _leases(metadata) as client:
        for field, value in cast("dict[bytes, bytes]", client.hgetall(LEASES)).items():
            number, holder = _text(field), _text(value)
            if holder == mine:
                with connect_once(at_database(metadata, int(number))) as database:
                    database.flushdb()
            if holder in (mine, _CHECKING + mine):
                client.hdel(LEASES, number)


def _leases(metadata: Mapping[str, str]) -> redis.Redis:
    return connect_once(at_database(metadata, 0))


def _is_empty(metadata: Mapping[str, str], number: int) -> bool:
    from redis.exceptions import ResponseError

    with connect_once(at_database(metadata, number)) as database:
        try:
            return int(database.dbsize()) == 0
        except ResponseError as exc:
            if "out of range" in str(exc):  # it did not say how many it has
                return False
            raise


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


if __name__ == "__main__":  # run by the warden, when the run ended without detaching
    detach(ServiceHandle.from_json(sys.stdin.read()).metadata)
