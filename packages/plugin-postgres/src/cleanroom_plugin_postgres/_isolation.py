"""A clean database for each test, under a name that stays the same."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cleanroom import ServiceHandle
from cleanroom_plugin_postgres import _databases
from cleanroom_plugin_postgres._client import make_url
from cleanroom_runtime import run_of

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection

_MOST_DATABASES = 1000


@dataclass
class Slot:
    """One database name of this process's, and what stands under it.

    Attributes:
        index: Leased from the run: no other process has it.
        name: The database's name.
        template: What the database was cloned from; `None` while there is none.
    """

    index: int
    name: str
    template: str | None = None


@contextmanager
def lease(handle: ServiceHandle) -> Iterator[ServiceHandle]:
    """Lease a clean database. The handle's metadata names what it is cloned from (`template`)."""
    pool = _pool(handle)
    slot = pool.take(handle.metadata.get("template", _databases.PRISTINE))
    try:
        yield with_database(handle, slot.name)
    finally:
        pool.give_back(slot)


def keep(handle: ServiceHandle, database: str) -> ServiceHandle:
    """Set a leased database aside, as it is. Returns the handle it is found with from now on."""
    return with_database(handle, _pool(handle).set_aside(database))


def close(handle: ServiceHandle) -> None:
    """Close the connections this process holds for isolating in a service."""
    pool = _pools.pop((handle.id, os.getpid()), None)
    if pool is not None:
        pool.close()


def with_database(handle: ServiceHandle, database: str) -> ServiceHandle:
    """Return the handle of another database of the same server."""
    metadata = handle.metadata
    url = make_url(handle.host, handle.port, metadata["username"], metadata["password"], database)
    return ServiceHandle(
        handle.id, handle.service_name, {**metadata, "database_name": database, "url": url}
    )


class _Pool:
    """The databases of one service that this process has leased names for."""

    def __init__(self, handle: ServiceHandle) -> None:
        self._handle = handle
        self._prefix = handle.metadata.get("database_prefix", handle.metadata["database_name"])
        self._lock = threading.Lock()
        self._free: list[Slot] = []
        self._taken: dict[str, Slot] = {}
        self._kept = 0
        self._admin: Connection | None = None

    def take(self, template: str) -> Slot:
        with self._lock:
            slot = self._free.pop() if self._free else self._new_slot()
            try:
                self._renew(slot, template)
            except BaseException:
                self._free.append(slot)
                raise
            self._taken[slot.name] = slot
            return slot

    def give_back(self, slot: Slot) -> None:
        with self._lock:
            self._taken.pop(slot.name, None)
            self._free.append(slot)

    def set_aside(self, database: str) -> str:
        """Give a leased database a name of its own, so that nobody renews it."""
        with self._lock:
            slot = self._taken[database]
            self._kept += 1
            name = f"{slot.name}_kept_{self._kept}"
            admin = self._connection()
            _databases.end_sessions(admin, slot.name)
            _databases.rename(admin, slot.name, name)
            slot.template = None
            return name

    def close(self) -> None:
        with self._lock:
            if self._admin is not None:
                self._admin.close()

    def _new_slot(self) -> Slot:
        reply = run_of(self._handle.id).request(
            "lease", pool=f"{self._handle.id}/databases", size=_MOST_DATABASES
        )
        index = int(reply["index"])
        return Slot(index, f"{self._prefix}_{index + 1}")

    def _renew(self, slot: Slot, template: str) -> None:
        """Put a fresh clone of the template under the slot's name."""
        admin = self._connection()
        _databases.drop(admin, slot.name)
        slot.template = None
        _databases.clone(admin, template, slot.name)
        slot.template = template

    def _connection(self) -> Connection:
        if self._admin is None or self._admin.closed:
            self._admin = _databases.admin_connection(self._handle.metadata)
        return self._admin


_pools: dict[tuple[str, int], _Pool] = {}
_pools_lock = threading.Lock()


def _pool(handle: ServiceHandle) -> _Pool:
    with _pools_lock:
        return _pools.setdefault((handle.id, os.getpid()), _Pool(handle))
