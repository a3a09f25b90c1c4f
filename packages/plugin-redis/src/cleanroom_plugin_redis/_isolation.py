"""An empty database for each test, under a number that stays the same."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cleanroom import ServiceError, ServiceHandle
from cleanroom_plugin_redis._client import at_database, connect, explained
from cleanroom_runtime import run_of

if TYPE_CHECKING:
    import redis

    from cleanroom_plugin_redis._reuse import ReusedConnection

_MOST_LEASES = 10_000_000
"""More than any server has databases: how many this one has is known here, not to the run."""


@contextmanager
def lease(handle: ServiceHandle) -> Iterator[ServiceHandle]:
    """Lease an empty database."""
    pool = _pool(handle)
    number = pool.take()
    try:
        yield with_database(handle, number)
    finally:
        pool.give_back(number)


def keep(handle: ServiceHandle) -> ServiceHandle:
    """Put what is in a leased database aside. Returns the handle it is found with from now on."""
    number = _pool(handle).set_aside(int(handle.require("database_name")))
    return with_database(handle, number)


def client(handle: ServiceHandle) -> redis.Redis:
    """Return a client of a leased database, with the connection of the lease before."""
    return _pool(handle).client(handle)


def close(handle: ServiceHandle) -> None:
    """Close the connections this process holds for isolating in a service."""
    pool = _pools.pop((handle.id, os.getpid()), None)
    if pool is not None:
        pool.close()


def with_database(handle: ServiceHandle, number: int) -> ServiceHandle:
    """Return the handle of another database of the same server."""
    return ServiceHandle(handle.id, handle.service_name, at_database(handle.metadata, number))


class _Pool:
    """The databases of one service that this process has leased."""

    def __init__(self, handle: ServiceHandle) -> None:
        self._handle = handle
        self._external = handle.require("backend") == "external"
        self._registered = False
        self._lock = threading.Lock()
        self._free: list[int] = []
        self._clients: dict[int, redis.Redis] = {}
        self._reused: dict[int, ReusedConnection] = {}

    def take(self) -> int:
        """Return the number of an empty database."""
        with self._lock:
            if self._free:
                number = min(self._free)  # so that a test's URL is always the same
                self._free.remove(number)
            else:
                number = self._lease()
            try:
                self._empty(number)
            except BaseException:
                self._free.append(number)
                raise
            return number

    def give_back(self, number: int) -> None:
        """Take a database back, as the test left it."""
        with self._lock:
            self._free.append(number)

    def _empty(self, number: int) -> None:
        reused = self._reused.get(number)
        if reused is None or not reused.renew():
            self._client(number).flushdb()

    def client(self, handle: ServiceHandle) -> redis.Redis:
        """Return a client of a leased database."""
        from cleanroom_plugin_redis._reuse import ReusedConnection

        number = int(handle.require("database_name"))
        with self._lock:
            if number not in self._reused:
                self._reused[number] = ReusedConnection(handle.metadata)
            return self._reused[number].client()

    def set_aside(self, number: int) -> int:
        """Move what is in a database to one that nobody uses. The number stays as it is."""
        with self._lock, explained(self._handle.metadata):
            for aside in self._numbers("kept"):
                if self._client(aside).dbsize() == 0:
                    self._client(number).swapdb(number, aside)
                    return aside
        raise AssertionError

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            for reused in self._reused.values():
                reused.close()
            self._clients.clear()
            self._reused.clear()

    def _client(self, number: int) -> redis.Redis:
        if number not in self._clients:
            from redis.backoff import NoBackoff
            from redis.retry import Retry

            # Once more, because a test may have ended all connections.
            metadata = at_database(self._handle.metadata, number)
            self._clients[number] = connect(metadata, retry=Retry(NoBackoff(), 1))
        return self._clients[number]

    def _lease(self) -> int:
        return next(self._numbers("databases"))

    def _numbers(self, purpose: str) -> Iterator[int]:
        """Lease numbers from the run: from 1 up, those of databases to be kept from the last down.

        Raises:
            ServiceError: None is left.
        """
        count, run = int(self._handle.require("databases")), run_of(self._handle.id)
        pool = f"{self._handle.id}/{purpose}"
        while True:
            index = int(run.request("lease", pool=pool, size=_MOST_LEASES)["index"])
            if index + 1 >= count:
                run.request("release", pool=pool, index=index)
                raise self._none_left(count)
            number = index + 1 if purpose == "databases" else count - 1 - index
            if not self._external or self._claim(number):
                yield number

    def _none_left(self, count: int) -> ServiceError:
        from cleanroom_plugin_redis._external import LEASES

        service, backend = self._handle.service_name, self._handle.metadata["backend"]
        if not self._external:
            return ServiceError(
                f"all of its {count} databases are in use",
                service=service,
                backend=backend,
                hint=f"give it more: with_setting('databases', {2 * count})",
            )
        return ServiceError(
            f"none of its {count} databases is empty and free",
            service=service,
            backend=backend,
            hint="give the server more with its setting databases, or empty one; the key "
            f"{LEASES} in database 0 says which are in use by test runs",
        )

    def _claim(self, number: int) -> bool:
        """Claim a database of somebody else's server, once the run knows how to give it up."""
        from cleanroom_plugin_redis import _external

        metadata = self._handle.metadata
        if number == int(metadata["database_name"]):
            return False
        if not self._registered:
            run_of(self._handle.id).once(f"{self._handle.id}/helper", self._register)
            self._registered = True
        return _external.claim(metadata, number)

    def _register(self) -> str:
        argv = [sys.executable, "-m", "cleanroom_plugin_redis._external"]
        helper = {"argv": argv, "input": self._handle.to_json()}
        run_of(self._handle.id).request("register", id=self._handle.id, helper=helper)
        return ""


_pools: dict[tuple[str, int], _Pool] = {}


def _pool(handle: ServiceHandle) -> _Pool:
    key = (handle.id, os.getpid())
    # Without a lock, which a fork would have to let go of: of threads that get here at the same
    # time, one adds its pool, and all are given that.
    return _pools.get(key) or _pools.setdefault(key, _Pool(handle))
