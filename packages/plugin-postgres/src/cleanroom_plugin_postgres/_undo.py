"""Undoing in place what a test wrote, where it is certain what that was.

A database is clean when the log has no write to it. Where only rows, sequences and large objects
were written, they are put back as the template has them; tables, views and sequences that were made
are dropped where that leaves no trace in the catalogues. Anything else is left to a fresh clone,
and so is whatever fails here: undoing never guesses.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cleanroom_plugin_postgres._baseline import (
    Baseline,
    NotUndoableError,
    Session,
    TemplateChangedError,
)
from cleanroom_plugin_postgres._content import Content, read_content
from cleanroom_plugin_postgres._origin import Origin
from cleanroom_plugin_postgres._put_back import put_back
from cleanroom_plugin_postgres._state import State, StateReader, read_shared, read_state, read_work
from cleanroom_plugin_postgres._wal import Scan, TooLongError, WriteLog

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection

_BLOAT = 4 * 1024 * 1024
"""Bytes by which dead rows may enlarge a database before it is replaced."""
_MEASURED_EVERY = 1024 * 1024
"""Bytes of a database's log after which its size is looked at."""

_LITTLE = 256 * 1024
"""Bytes of the log, and of rows, up to which the log is not read again after they were put back."""

_PATIENCE = 0.25
"""Seconds in which a transaction of a running service may end by itself."""
_LAST_PATIENCE = 10.0
"""Seconds in which a session that was told to end may do so."""
_ROUNDS = 5


class Undo:
    """Puts the clones of one template back.

    Args:
        admin: A superuser's connection to the maintenance database.
        reader: Of the server.
        log: The server's log.
        origin: Knows the rows of the template.

    What is in the template it learns from the first clone it meets, or from the origin.
    """

    def __init__(
        self, admin: Connection, reader: StateReader, log: WriteLog, origin: Origin
    ) -> None:
        self._admin = admin
        self._reader = reader
        self._log = log
        self._origin = origin
        self._content: Content | None = None

    def undo(
        self, database: str, baseline: Baseline, session: Session, *, drops: bool = True
    ) -> Baseline:
        """Put a database back to its baseline and return the new one.

        Args:
            database: The database's name.
            baseline: Its last clean state.
            session: Ours in the database, which is opened if there is something to do in it.
            drops: Whether tables, views and sequences that were made may be dropped.

        Raises:
            NotUndoableError: It must be replaced; says why.
        """
        # What is read now is the template's if it turns out that nothing was written.
        content = self._content or read_content(session.opened())
        if self._content and content.problem:
            raise NotUndoableError(content.problem)
        if self._content and self._is_idle(baseline, session):
            return baseline
        own = {baseline.putting_back} if baseline.putting_back else set[str]()
        now, written = baseline, baseline.unmeasured
        for attempt in range(_ROUNDS):
            is_first = attempt == 0
            now, scan = self._look(database, now, session, own, is_first=is_first)
            written += scan.length
            if self._content is None:
                self._content = content = self._origin.content() if scan.writes else content
            if content.problem:
                raise NotUndoableError(content.problem)
            putting_back = ""
            if scan.writes:
                # What this has put back itself cannot be told from what was added since.
                added = baseline.added if is_first else None
                put = put_back(
                    session.opened, content, self._origin, scan.writes, added, drops=drops
                )
                putting_back = put.transaction
                own.add(putting_back)
                # Where somebody has written meanwhile, rows may have been taken for added ones that
                # were changed, and what was put back must not be much to leave out the next time.
                is_all = is_first and put.rows_only and put.position == scan.end
                if not is_all or scan.length + put.copied > _LITTLE:
                    continue
            return now._replace(
                putting_back=putting_back, unmeasured=self._measure(now.oid, written, content)
            )
        raise NotUndoableError("it is being written to")

    def _is_idle(self, baseline: Baseline, session: Session) -> bool:
        if baseline.is_past:
            return False
        return baseline.at == self._reader.idle_position(baseline.oid, self._ours(session))

    def _ours(self, session: Session) -> list[int]:
        return [self._admin.info.backend_pid, *session.pids()]

    def _look(
        self,
        database: str,
        baseline: Baseline,
        session: Session,
        own: set[str],
        *,
        is_first: bool,
    ) -> tuple[Baseline, Scan]:
        """Wait until nobody is in a transaction; return what the database is then, and its writes.

        What runs is given a moment to end. What a test left open, or what holds a lock, is ended.
        The first time, it is also seen to that the database is the same, with the same settings.

        Raises:
            NotUndoableError: It is another database, has other settings or grants, or is busy.
        """
        reader, template = self._reader, self._origin.template
        # Settings and grants were looked at before: what is put back are rows.
        ask = (
            reader.statements(database, template, self._ours(session))
            if is_first
            else reader.work_statements(baseline.oid, self._ours(session))
        )
        begun = time.monotonic()
        while True:
            # The state comes first: what has ended by then has written before the scan's end.
            try:
                scan, answers = self._log.scan(
                    (baseline.oid, baseline.template),
                    baseline.position,
                    without=own,
                    after=ask,
                )
            except TooLongError:
                raise NotUndoableError("much was written to the server") from None
            if is_first:
                work = _check_belongings(baseline, read_state(answers)).work
                shared = read_shared(answers)
            else:
                work, shared = read_work(answers), baseline.shared
            if not work.busy and not scan.is_open:
                now = baseline._replace(
                    next_transaction=work.next_transaction,
                    position=scan.end,
                    shared=shared,
                    is_past=False,
                )
                return now, scan
            waited = time.monotonic() - begun
            if waited > _LAST_PATIENCE:
                raise NotUndoableError("a session in it does not end")
            for pid in work.busy:
                if pid < 0 or waited > _PATIENCE:
                    self._admin.execute("SELECT pg_terminate_backend(%s, 5000)", [abs(pid)])
            time.sleep(0.001)

    def _measure(self, oid: int, written: int, content: Content) -> int:
        """Ask for a fresh clone before there are so many dead rows that they slow the tests.

        Returns:
            Bytes of the log since the size was looked at.
        """
        if written < _MEASURED_EVERY:
            return written
        row = self._admin.execute("SELECT pg_database_size(%s::oid)", [oid]).fetchone()
        if row is None or int(str(row[0])) > content.size + _BLOAT:
            raise NotUndoableError("it is full of dead rows")
        return 0


def _check_belongings(baseline: Baseline, state: State | None) -> State:
    """Refuse a database that is another one, or that has other things beside its content."""
    if state is None or state.oid != baseline.oid:
        raise NotUndoableError("the database was dropped or made again")
    if state.template != baseline.template:
        raise TemplateChangedError("the template was made again")
    for name, value in state.belongings.items():
        if value != baseline.belongings[name]:
            raise NotUndoableError(f"the database has other {name}")
    return state
