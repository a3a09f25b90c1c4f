"""Clones that are made while a test runs, so that the next one need not wait for its database."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from cleanroom_plugin_postgres import _databases
from cleanroom_plugin_postgres._databases import literal, quote, run_all

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection

# What would keep a database from being renamed, for which the server waits 5 seconds.
_KEEPERS = """
SELECT EXISTS (SELECT FROM pg_prepared_xacts WHERE database = {name})
    OR EXISTS (SELECT FROM pg_replication_slots WHERE database = {name})
    OR EXISTS (SELECT FROM pg_subscription AS s JOIN pg_database AS d ON d.oid = s.subdbid
               WHERE d.datname = {name})
"""


class Spares:
    """One clone ahead for each name of a database. They are made, and dropped, by one thread.

    Nothing here is needed: whatever fails, the caller makes a clone by itself.

    Args:
        metadata: Of a handle of the server.
    """

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._metadata = metadata
        self._thread: ThreadPoolExecutor | None = None
        self._connection: Connection | None = None
        self._ahead: dict[str, tuple[str, Future[str]]] = {}  # by name: template, and the clone
        self._count = 0

    def order(self, name: str, template: str) -> None:
        """Have a clone made of a template, to be put under a name of a database later."""
        if name in self._ahead:
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "cleanroom-spares")
        self._count += 1
        spare = f"{name}_next_{self._count}"
        self._ahead[name] = (template, self._thread.submit(self._make, template, spare))

    def put(self, admin: Connection, name: str, template: str) -> bool:
        """Put the clone that was ordered under its name, and drop what was there.

        Args:
            admin: A connection to the maintenance database.
            name: Of the database, whose sessions are ended.
            template: What the clone must be of.

        Returns:
            Whether that was possible. If not, the database is there as it was, or closed.
        """
        import psycopg

        ordered, made = self._ahead.pop(name, (None, None))
        if made is None:
            return False
        try:
            spare = made.result()
        except psycopg.Error:
            return False
        try:
            if ordered == template and self._swap(admin, name, spare):
                return True
        except psycopg.Error:
            pass  # all of it was undone
        self._drop_later(spare)
        return False

    def forget(self, name: str) -> None:
        """Drop the clone that was ordered for a name."""
        ordered = self._ahead.pop(name, None)
        if ordered is not None and self._thread is not None:
            made = ordered[1]
            self._thread.submit(lambda: _databases.drop(self._own, made.result()))

    def close(self) -> None:
        """End the thread, once it has done what it is at."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None
        self._ahead.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _swap(self, admin: Connection, name: str, spare: str) -> bool:
        answers = run_all(admin, [_KEEPERS.format(name=literal(name)), *_databases.shut_out(name)])
        if answers[0][0][0]:
            return False
        _databases.end_sessions(admin, name)
        self._count += 1
        old = f"{name}_old_{self._count}"
        run_all(
            admin,
            [
                f"ALTER DATABASE {quote(name)} RENAME TO {quote(old)}",
                f"ALTER DATABASE {quote(spare)} RENAME TO {quote(name)}",
            ],
        )
        self._drop_later(old)
        return True

    def _drop_later(self, name: str) -> None:
        if self._thread is not None:
            self._thread.submit(lambda: _databases.drop(self._own, name))

    def _make(self, template: str, spare: str) -> str:
        _databases.clone(self._own, template, spare)
        return spare

    @property
    def _own(self) -> Connection:
        """The thread's connection; a new one if it was lost."""
        if self._connection is None or self._connection.closed:
            self._connection = _databases.settle(_databases.admin_connection(self._metadata))
        return self._connection
