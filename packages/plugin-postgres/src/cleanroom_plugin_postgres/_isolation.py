"""A clean database for each test, under a name that stays the same."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cleanroom import ServiceHandle
from cleanroom_plugin_postgres import _databases
from cleanroom_plugin_postgres._client import connect, make_url
from cleanroom_plugin_postgres._origin import NotUndoableError, Origin
from cleanroom_plugin_postgres._undo import Baseline, Undo, mark, take_baseline
from cleanroom_plugin_postgres._wal import open_log
from cleanroom_runtime import run_of

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection

_MOST_DATABASES = 1000


@dataclass
class Slot:
    """One database name of this process's, and what stands under it.

    Attributes:
        name: The database's name. No other process has it.
        template: What the database was cloned from; `None` while there is none.
        baseline: Its last clean state; `None` where it cannot be told.
        connection: Ours to the database, to undo with.
    """

    name: str
    template: str | None = None
    baseline: Baseline | None = None
    connection: Connection | None = None

    def disconnect(self) -> None:
        """Close our own connection to the database."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


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
    url = make_url(
        handle.host, handle.port, metadata["username"], metadata["password"], database,
        parameters=metadata.get("parameters", ""),
    )  # fmt: skip
    return ServiceHandle(
        handle.id, handle.service_name, {**metadata, "database_name": database, "url": url}
    )


class _Pool:
    """The databases of one service that this process has leased names for."""

    def __init__(self, handle: ServiceHandle) -> None:
        self._handle = handle
        self._prefix = handle.metadata["database_name"]
        self._lock = threading.Lock()
        self._free: list[Slot] = []
        self._taken: dict[str, Slot] = {}
        self._kept = 0
        self._admin_connection: Connection | None = None
        self._undoing: dict[str, Undo | None] = {}
        self._replaced: Counter[str] = Counter()

    def take(self, template: str) -> Slot:
        """Return a slot with a clean clone of the template."""
        with self._lock:
            slot = self._fitting(template) or Slot(self._new_name())
            try:
                self._renew(slot, template)
            except BaseException:
                self._free.append(slot)
                raise
            self._taken[slot.name] = slot
            return slot

    def give_back(self, slot: Slot) -> None:
        """Take a slot back, as the test left it."""
        with self._lock:
            self._taken.pop(slot.name, None)
            self._free.append(slot)

    def set_aside(self, database: str) -> str:
        """Give a leased database a name of its own, so that nobody renews it."""
        with self._lock:
            slot = self._taken[database]
            self._kept += 1
            name = f"{slot.name}_kept_{self._kept}"
            slot.disconnect()
            _databases.end_sessions(self._admin, slot.name)
            _databases.rename(self._admin, slot.name, name)
            slot.template = None
            return name

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for slot in [*self._free, *self._taken.values()]:
                slot.disconnect()
            if self._admin_connection is not None:
                self._admin_connection.close()

    def _fitting(self, template: str) -> Slot | None:
        """A free slot, one of the same template first."""
        self._free.sort(key=lambda slot: slot.template == template)
        return self._free.pop() if self._free else None

    def _new_name(self) -> str:
        reply = run_of(self._handle.id).request(
            "lease", pool=f"{self._handle.id}/databases", size=_MOST_DATABASES
        )
        return f"{self._prefix}_{int(reply['index']) + 1}"

    def _renew(self, slot: Slot, template: str) -> None:
        """Make what stands under the slot's name a clean clone of the template."""
        import psycopg

        if slot.template == template:
            try:
                self._undo_in_place(slot, template)
            except NotUndoableError as exc:
                self._replaced[str(exc)] += 1
            except psycopg.Error as exc:
                self._replaced[f"undoing failed: {str(exc).splitlines()[0]}"] += 1
            else:
                return
        self._replace(slot, template)

    def _undo_in_place(self, slot: Slot, template: str) -> None:
        """Undo what was written since the last clean state.

        Raises:
            NotUndoableError: The database must be replaced; says why.
        """
        if template not in self._undoing:
            log = open_log(self._admin)
            origin = Origin(self._admin, template, f"{slot.name}_origin", self._connect)
            self._undoing[template] = Undo(self._admin, log, origin) if log else None
        undo = self._undoing[template]
        if undo is None or slot.baseline is None:
            raise NotUndoableError("this server cannot tell what was written")
        if slot.connection is None or slot.connection.closed:
            slot.connection = self._connect(slot.name)
        slot.baseline = undo.undo(slot.name, slot.baseline, slot.connection)

    def _replace(self, slot: Slot, template: str) -> None:
        """Put a fresh clone of the template under the slot's name."""
        slot.disconnect()
        slot.template = slot.baseline = None
        _databases.drop(self._admin, slot.name)
        before = mark(self._admin)
        _databases.clone(self._admin, template, slot.name)
        slot.template = template
        slot.baseline = take_baseline(self._admin, slot.name, before)
        undo = self._undoing.get(template)
        if undo is not None and undo.ignorant:
            slot.connection = self._connect(slot.name)
            undo.learn(slot.connection)

    def _connect(self, database: str) -> Connection:
        return connect(self._handle.metadata, database)

    @property
    def _admin(self) -> Connection:
        if self._admin_connection is None or self._admin_connection.closed:
            self._admin_connection = _databases.admin_connection(self._handle.metadata)
            self._undoing.clear()
        return self._admin_connection


_pools: dict[tuple[str, int], _Pool] = {}
_pools_lock = threading.Lock()


def _pool(handle: ServiceHandle) -> _Pool:
    with _pools_lock:
        return _pools.setdefault((handle.id, os.getpid()), _Pool(handle))
