"""The databases of one service that this process has leased, and how each is made clean."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cleanroom import ServiceHandle
from cleanroom_plugin_postgres import _baseline, _databases, _first_clone
from cleanroom_plugin_postgres._aside import copy_content
from cleanroom_plugin_postgres._baseline import Baseline, Session, mark, take_baseline
from cleanroom_plugin_postgres._server import Server
from cleanroom_plugin_postgres._spares import Spares
from cleanroom_plugin_postgres._state import FIRST_VERSION, Shared, differences
from cleanroom_runtime import Replaced, run_of

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection

_MOST_DATABASES = 1000


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


class Pool:
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
        self._looked_for = set[str]()  # templates of which the server may have started with a clone

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
                slot.baseline = slot.baseline._replace(is_past=True)
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
        why: _baseline.NotUndoableError | None = None
        if slot.template == template:
            why = self._undo_in_place(slot, template)
            if why is None:
                return
        elif slot.template is not None:
            why = _baseline.NotUndoableError("another template was asked for")
        begun = time.perf_counter()
        if not isinstance(why, _baseline.SchemaChangedError):
            self._spares.forget(slot.name)  # which may be a clone of another template by now
        self._replace(slot, template)
        if why is not None:
            if slot.baseline is not None:
                self._spares.order(slot.name, template)
            cost = Replaced(1, time.perf_counter() - begun)
            self.replaced[str(why)] = self.replaced.get(str(why), Replaced(0, 0.0)) + cost

    def _undo_in_place(
        self, slot: Slot, template: str, *, drops: bool = True
    ) -> _baseline.NotUndoableError | None:
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
                    return _baseline.NotUndoableError("this server cannot tell what was written")
                if slot.session is None:
                    slot.session = Session(lambda: self._own.connect_to_undo(slot.name))
                slot.baseline = undo.undo(slot.name, slot.baseline, slot.session, drops=drops)
            except _baseline.TemplateChangedError as exc:
                server.forget(template)
                return exc
            except _baseline.NotUndoableError as exc:
                return exc
            except psycopg.Error as exc:
                # A test may have ended all sessions but its own, and ours with them.
                lost = server.admin.closed or slot.session is None or slot.session.lost
                server = self._own
                slot.disconnect()
                if is_last or not lost:
                    return _baseline.NotUndoableError(f"undoing failed: {str(exc).splitlines()[0]}")
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
        if not self._put_spare(server.admin, slot.name, template):
            _databases.drop(server.admin, slot.name)
            _databases.clone(server.admin, template, slot.name)
        if before:
            slot.baseline = take_baseline(server.reader, slot.name, template, before)
        slot.template = template

    def _put_spare(self, admin: Connection, name: str, template: str) -> bool:
        """Put a clone that was made beforehand under a name, if there is one."""
        if self._handle.metadata["backend"] == "process" and template not in self._looked_for:
            self._looked_for.add(template)  # there is one at most, for the first to ask
            if _first_clone.take_spare(admin, self._prefix, template, name):
                return True
        return self._spares.put(admin, name, template)

    @property
    def _own(self) -> Server:
        """Our connection to the server; a new one if it was lost."""
        if self._server is None or self._server.admin.closed:
            self._server = Server(self._handle.metadata)
        return self._server
