"""A clean database for each test, under a name that stays the same."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from cleanroom import ServiceHandle
from cleanroom_plugin_postgres import _databases, _origin
from cleanroom_plugin_postgres._aside import copy_content
from cleanroom_plugin_postgres._client import make_url
from cleanroom_plugin_postgres._server import Server
from cleanroom_plugin_postgres._spares import Spares
from cleanroom_plugin_postgres._state import Shared, differences
from cleanroom_plugin_postgres._undo import Baseline, Session, mark, take_baseline
from cleanroom_plugin_postgres._wal import FIRST_VERSION
from cleanroom_runtime import Replaced, run_of

_MOST_DATABASES = 1000


class NotIsolatedWarning(UserWarning):
    """A test left something changed that all databases of a server share, such as a role."""


@dataclass
class Slot:
    """One database name of this process's, and what stands under it.

    Attributes:
        number: Its place among this process's slots. The first one free is leased first.
        name: The database's name. No other process has it.
        template: What the database was cloned from; `None` while there is none.
        baseline: Its last clean state; `None` where it cannot be told.
        session: Ours in the database, to undo with.
        shared: What all databases shared when it was leased.
    """

    number: int
    name: str
    template: str | None = None
    baseline: Baseline | None = None
    session: Session | None = None
    shared: Shared = field(default_factory=dict[str, str])

    def disconnect(self) -> None:
        """Close our own session in the database."""
        if self.session is not None:
            self.session.close()
            self.session = None


@contextmanager
def lease(handle: ServiceHandle) -> Iterator[ServiceHandle]:
    """Lease a clean database. The handle's metadata names what it is cloned from (`template`).

    Afterwards a `NotIsolatedWarning` names what was changed that no database has of its own.
    """
    pool = _pool(handle)
    slot = pool.take(handle.metadata.get("template", _databases.PRISTINE))
    try:
        yield with_database(handle, slot.name)
    finally:
        changes = pool.give_back(slot)
        if changes:
            warnings.warn(
                f"{', '.join(changes)} on the server of {handle.service_name!r}, by this test or "
                "at the same time: databases share that, so other tests see it",
                NotIsolatedWarning,
                stacklevel=3,
            )


def keep(handle: ServiceHandle, database: str) -> ServiceHandle:
    """Set a leased database aside, as it is. Returns the handle it is found with from now on."""
    return with_database(handle, _pool(handle).set_aside(database))


def replaced(handle: ServiceHandle) -> Mapping[str, Replaced]:
    """Return why databases were replaced that this process had leased, and what that cost.

    A database is replaced by a fresh clone when what was written to it cannot be undone in place.
    """
    pool = _pools.get((handle.id, os.getpid()))
    return dict(pool.replaced) if pool is not None else {}


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
        self.replaced: dict[str, Replaced] = {}
        self._handle = handle
        self._prefix = handle.metadata["database_name"]
        self._lock = threading.Lock()
        self._slots: list[Slot] = []
        self._free: list[Slot] = []
        self._server: Server | None = None
        self._spares = Spares(handle.metadata)

    def take(self, template: str) -> Slot:
        """Return a slot with a clean clone of the template."""
        with self._lock:
            slot = self._first_free()
            try:
                self._renew(slot, template)
                slot.shared = slot.baseline.shared if slot.baseline else self._own.reader.shared()
            except BaseException:
                slot.disconnect()  # which may be in the middle of a transaction
                self._free.append(slot)
                raise
            return slot

    def give_back(self, slot: Slot) -> list[str]:
        """Take a slot back, as the test left it. Returns what changed that databases share."""
        import psycopg

        with self._lock:
            self._free.append(slot)
            if self._server is None or self._server.admin.closed:
                return []
            reader = self._server.reader
            try:
                if slot.baseline is None:
                    return differences(slot.shared, reader.shared())
                shared = reader.shared_since(slot.baseline.at)
                if shared is None:
                    return []
                slot.baseline = replace(slot.baseline, is_past=True)
                return differences(slot.shared, shared)
            except psycopg.Error:
                return []  # the server, or our connection to it, is gone

    def set_aside(self, database: str) -> str:
        """Return the name under which what is in a leased database is from now on.

        Where that can be undone in place, it is a copy, and connections stay open. Else the
        database itself is given that name.
        """
        with self._lock:
            slot = next(slot for slot in self._slots if slot.name == database)
            name = _databases.unused_name(self._own.admin, f"{slot.name}_kept")
            if not self._copy_aside(slot, name):
                slot.disconnect()
                _databases.rename(self._own.admin, slot.name, name)
                slot.template = None
            return name

    def _copy_aside(self, slot: Slot, name: str) -> bool:
        """Copy what is in a database. That nothing is missing is proven by undoing it."""
        import psycopg

        template = slot.template
        if template is None or slot.baseline is None:
            return False
        try:
            copied = copy_content(self._own, slot.name, template, name)
            if copied and self._undo_in_place(slot, template, drops=False) is None:
                return True
        except psycopg.Error:
            slot.disconnect()
        _databases.drop(self._own.admin, name)
        return False

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for slot in self._slots:
                slot.disconnect()
            self._spares.close()
            if self._server is not None:
                self._server.admin.close()

    def _first_free(self) -> Slot:
        """The free slot that is always the first to be taken, so that a test's URL is the same."""
        if not self._free:
            number = len(self._slots)
            self._slots.append(Slot(number, self._new_name()))
            return self._slots[-1]
        slot = min(self._free, key=lambda slot: slot.number)
        self._free.remove(slot)
        return slot

    def _new_name(self) -> str:
        reply = run_of(self._handle.id).request(
            "lease", pool=f"{self._handle.id}/databases", size=_MOST_DATABASES
        )
        return f"{self._prefix}_{int(reply['index']) + 1}"

    def _renew(self, slot: Slot, template: str) -> None:
        """Make what stands under the slot's name a clean clone of the template."""
        why: _origin.NotUndoableError | None = None
        if slot.template == template:
            why = self._undo_in_place(slot, template)
            if why is None:
                return
        elif slot.template is not None:
            why = _origin.NotUndoableError("another template was asked for")
        begun = time.perf_counter()
        if not isinstance(why, _origin.SchemaChangedError):
            self._spares.forget(slot.name)  # which may be a clone of another template by now
        self._replace(slot, template)
        if why is not None:
            if slot.baseline is not None:
                self._spares.order(slot.name, template)
            cost = Replaced(1, time.perf_counter() - begun)
            self.replaced[str(why)] = self.replaced.get(str(why), Replaced(0, 0.0)) + cost

    def _undo_in_place(
        self, slot: Slot, template: str, *, drops: bool = True
    ) -> _origin.NotUndoableError | None:
        """Undo what was written since the last clean state.

        Args:
            slot: Where that is.
            template: What it was cloned from.
            drops: Whether tables, views and sequences that were made may be dropped.

        Returns:
            Why the database must be replaced; `None` if it is clean.
        """
        import psycopg

        server = self._own
        for is_last in (False, True):
            try:
                undo = server.undo(template, slot.name)
                if undo is None or slot.baseline is None:
                    return _origin.NotUndoableError("this server cannot tell what was written")
                if slot.session is None:
                    slot.session = Session(lambda: self._own.connect_to_undo(slot.name))
                slot.baseline = undo.undo(slot.name, slot.baseline, slot.session, drops=drops)
            except _origin.TemplateChangedError as exc:
                server.forget(template)
                return exc
            except _origin.NotUndoableError as exc:
                return exc
            except psycopg.Error as exc:
                # A test may have ended all sessions but its own, and ours with them.
                lost = server.admin.closed or slot.session is None or slot.session.lost
                server = self._own
                slot.disconnect()
                if is_last or not lost:
                    return _origin.NotUndoableError(f"undoing failed: {str(exc).splitlines()[0]}")
            else:
                return None
        return None

    def _replace(self, slot: Slot, template: str) -> None:
        """Put a fresh clone of the template under the slot's name."""
        slot.disconnect()
        slot.template = slot.baseline = None
        server = self._own
        tells = server.admin.info.server_version >= FIRST_VERSION
        before = mark(server.admin) if tells else None
        if not self._spares.put(server.admin, slot.name, template):
            _databases.drop(server.admin, slot.name)
            _databases.clone(server.admin, template, slot.name)
        if before:
            slot.baseline = take_baseline(server.reader, slot.name, template, before)
        slot.template = template

    @property
    def _own(self) -> Server:
        """Our connection to the server; a new one if it was lost."""
        if self._server is None or self._server.admin.closed:
            self._server = Server(self._handle.metadata)
        return self._server


_pools: dict[tuple[str, int], _Pool] = {}
_pools_lock = threading.Lock()


def _pool(handle: ServiceHandle) -> _Pool:
    with _pools_lock:
        return _pools.setdefault((handle.id, os.getpid()), _Pool(handle))


def _unlock() -> None:
    """Another thread may have held the lock when this process was forked."""
    global _pools_lock
    _pools_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)
