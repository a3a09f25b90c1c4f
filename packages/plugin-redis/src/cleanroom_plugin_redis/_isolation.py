"""An empty database for each test, under a number that stays the same."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cleanroom import ServiceHandle
from cleanroom_plugin_redis._client import connect, make_url
from cleanroom_runtime import run_of

if TYPE_CHECKING:
    import redis

_FOREIGN_CLAIM = "cleanroom:lease:{number}"
"""Key in somebody else's server that tells its other users which databases are in use."""


@contextmanager
def lease(handle: ServiceHandle) -> Iterator[ServiceHandle]:
    """Lease an empty database."""
    pool = _pool(handle)
    number = pool.take()
    try:
        yield with_database(handle, number)
    finally:
        pool.give_back(number)


def keep(handle: ServiceHandle, number: int) -> None:
    """Never lease this database again: somebody wants to look at what is in it."""
    _pool(handle).set_aside(number)


def close(handle: ServiceHandle) -> None:
    """Close the connections this process holds for isolating in a service."""
    pool = _pools.pop((handle.id, os.getpid()), None)
    if pool is not None:
        pool.close()


def with_database(handle: ServiceHandle, number: int) -> ServiceHandle:
    """Return the handle of another database of the same server."""
    facts = handle.metadata
    url = make_url(handle.host, handle.port, facts["username"], facts["password"], number)
    return ServiceHandle(
        handle.id, handle.service_name, {**facts, "database_name": str(number), "url": url}
    )


def release_foreign(metadata: Mapping[str, str], service_id: str) -> None:
    """Empty and give up the databases of somebody else's server that a service has used."""
    with connect(metadata) as client:
        for key in client.scan_iter(_FOREIGN_CLAIM.format(number="*"), count=1000):
            if client.get(key) == service_id.encode():
                number = key.decode().rpartition(":")[2]
                with connect({**metadata, "database_name": number}) as database:
                    database.flushdb()
                client.delete(key)


class _Pool:
    """The databases of one service that this process has leased."""

    def __init__(self, handle: ServiceHandle) -> None:
        self._handle = handle
        self._lock = threading.Lock()
        self._free: list[int] = []
        self._clients: dict[int, redis.Redis] = {}
        self._aside: set[int] = set()

    def take(self) -> int:
        with self._lock:
            number = self._free.pop() if self._free else self._lease()
            self._client(number).flushdb()
            return number

    def give_back(self, number: int) -> None:
        with self._lock:
            if number not in self._aside:
                self._free.append(number)

    def set_aside(self, number: int) -> None:
        with self._lock:
            self._aside.add(number)

    def close(self) -> None:
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _client(self, number: int) -> redis.Redis:
        if number not in self._clients:
            self._clients[number] = connect(with_database(self._handle, number).metadata)
        return self._clients[number]

    def _lease(self) -> int:
        """Lease a number from the run. Number 0 is the service's own."""
        databases = int(self._handle.require("databases"))
        while True:
            reply = run_of(self._handle.id).request(
                "lease", pool=f"{self._handle.id}/databases", size=databases - 1
            )
            number = int(reply["index"]) + 1
            if self._handle.metadata["backend"] != "external" or self._claim_foreign(number):
                return number

    def _claim_foreign(self, number: int) -> bool:
        """Claim a database of somebody else's server, if it is empty and nobody has it."""
        key = _FOREIGN_CLAIM.format(number=number)
        with connect(self._handle.metadata) as client:
            if not client.set(key, self._handle.id, nx=True):
                return False
        if self._client(number).dbsize() == 0:
            return True
        with connect(self._handle.metadata) as client:
            client.delete(key)
        return False


_pools: dict[tuple[str, int], _Pool] = {}
_pools_lock = threading.Lock()


def _pool(handle: ServiceHandle) -> _Pool:
    with _pools_lock:
        return _pools.setdefault((handle.id, os.getpid()), _Pool(handle))
