"""The warden's loop: one thread that answers clients, watches them, and watches its children.

Requests and replies are JSON objects, one a line, over a unix socket. A reply carries `ok` and,
where it is false, `error`. Some replies come late: to `claim` when another client has finished
what both want, to `stop` and `wait` when the process is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import time

from . import _clean, _processes
from ._children import Child, Children
from ._claims import Claims, Leases
from ._clients import Clients, Connection
from ._journal import Journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Request = dict[str, Any]

OWNER_GRACE = 2.0
"""Seconds the workers of a run keep their services after the process that began it is gone."""

SWEEPER_GRACE = 1.0
"""Seconds the warden waits at its end for what cleans up after earlier runs."""


class Warden:
    """Owns the resources of one run.

    Args:
        run_directory: The run's directory; its name is the run's id.
        listener: The listening socket clients connect to.
        first: The connection of the client that started the warden.
        owner: Pid of the process the run belongs to; the run ends soon after it.
        roots: The folders in which runs live, to be swept of those whose warden died.
    """

    def __init__(
        self,
        run_directory: str,
        listener: socket.socket,
        first: socket.socket,
        owner: int,
        roots: list[str],
    ) -> None:
        self._run_directory = run_directory
        self._run_id = os.path.basename(run_directory)
        self._roots = roots
        journal = os.path.join(run_directory, "journal")
        if os.path.exists(journal):  # of a warden of this run that was killed
            _clean.clean_up_after(run_directory)
        self._journal = Journal(journal)
        self._selector = selectors.DefaultSelector()
        self._children = Children(self._journal)
        self._ahead: dict[str, tuple[Child, Request]] = {}  # by the service it may be for
        self._claims = Claims()
        self._leases = Leases()
        self._registered: dict[str, bool] = {}  # id of a service: whether it runs
        self._kept: list[str] = []
        self._farewells: list[Connection] = []  # told when all is gone
        self._hasty: list[Connection] = []  # told when nothing is left to do but for engines
        self._end_at: float | None = None
        self._prepared = False
        self._sweeper: int | None = None
        self._owner = owner
        self._owner_alive = True
        self._hear_of_children()
        self._clients = Clients(
            self._selector, listener, self._handle, self._claims.closed, self._gone
        )
        self._owner_watched = self._clients.watch(owner)
        self._clients.add(first)

    def serve(self) -> None:
        """Answer until the run is over, then end and remove everything it owns."""
        try:
            while not self._over():
                for key, _ in self._selector.select(self._patience()):
                    key.data()
                self._children.look_after()
                self._look_after_owner()
                self._prepare()
        finally:
            self._close_up()

    def _hear_of_children(self) -> None:
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(
            wake_read, selectors.EVENT_READ, lambda: os.read(wake_read, 4096) and None
        )

    def _prepare(self) -> None:
        """Do what takes time when nobody waits for it."""
        if not self._prepared:
            self._prepared = True
            _processes.adopt_orphans()
        if self._sweeper is None and self._journal.records:
            self._sweeper = self._start_sweeper()  # now that the first service is on its way

    def _start_sweeper(self) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                for name in os.listdir("/dev/fd"):  # not to be taken for the warden
                    if int(name) > 2:
                        with contextlib.suppress(OSError):
                            os.close(int(name))
                _clean.sweep(self._roots)
            finally:
                os._exit(0)
        return pid

    # -- the clients

    def _handle(self, connection: Connection, line: bytes) -> None:
        try:
            request = json.loads(line)
            answer = getattr(self, f"_on_{request['op']}", None)
            if answer is None:
                connection.refuse(f"unknown request {request['op']!r}")
            else:
                answer(connection, request)
        except OSError as exc:
            place = f": {exc.filename}" if exc.filename else ""
            connection.refuse(f"{exc.strerror or exc}{place}")
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            connection.refuse(f"malformed request: {exc!r}")

    def _gone(self, pid: int) -> None:
        self._leases.gone(pid)
        if pid == self._owner:
            self._owner_alive = False
        if not self._owner_alive:
            self._end_soon()

    def _look_after_owner(self) -> None:
        """Where the system does not tell when it dies, find out by asking."""
        if self._owner_alive and not self._owner_watched:
            try:
                os.kill(self._owner, 0)
            except ProcessLookupError:
                self._gone(self._owner)
            except OSError:
                pass

    def _end_soon(self) -> None:
        """End at once when nobody is left, else when the workers had time to finish."""
        due = time.monotonic() + (OWNER_GRACE if self._clients else 0)
        self._end_at = due if self._end_at is None else min(self._end_at, due)

    def _over(self) -> bool:
        if self._kept:
            return False
        return self._end_at is not None and time.monotonic() >= self._end_at

    def _patience(self) -> float | None:
        """Seconds until something is due without an event, if anything is."""
        due = self._children.due()
        if self._end_at is not None and not self._kept:
            due.append(self._end_at)
        if self._owner_alive and not self._owner_watched:
            due.append(time.monotonic() + 0.5)
        return max(0.0, min(due) - time.monotonic()) if due else None

    # -- requests

    def _on_hello(self, connection: Connection, request: Request) -> None:
        connection.reply(run=self._run_id)
        self._clients.greet(connection, int(request["pid"]))

    def _on_spawn(self, connection: Connection, request: Request) -> None:
        """Start a process.

        `time_limit`: seconds after which it is asked to end. `gentle`: when it has ended, others of
        its group have time to end as well, because they leave something when they are killed.
        `ahead`: no service asks for it yet: which one may (`service`), and what tells whether it
        is as that one wants it (`how`); and `where` it is.
        """
        child = self._children.spawn(request)
        if "ahead" in request:
            self._ahead[request["ahead"]["service"]] = (child, request["ahead"])
        connection.reply(pid=child.pid)

    def _on_take(self, connection: Connection, request: Request) -> None:
        """Give a service the process that was started ahead, if it is as wanted; else end that."""
        found = self._ahead.pop(request["service"], None)
        if found is None:
            connection.reply(taken=False, unwanted=False)
            return
        child, ahead = found
        wanted = ahead["how"] == request["how"]
        if wanted and not child.reap():
            connection.reply(taken=True, id=child.id, pid=child.pid, where=ahead["where"])
        else:
            connection.reply(taken=False, unwanted=not wanted)
            self._children.abandon(child)

    def _on_register(self, connection: Connection, request: Request) -> None:
        """Note something the client is about to make: a service, an engine, a helper to run."""
        service = {"service": request["id"]} if "id" in request else {}
        for kind in ("engine", "helper", "directory"):
            if kind in request:
                self._journal.add({kind: request[kind], **service})
        if "id" in request:
            self._registered[request["id"]] = True
        connection.reply()

    def _on_status(self, connection: Connection, request: Request) -> None:
        service_id = request["id"]
        child = self._children.get(service_id)
        if child is not None:
            child.reap()
            connection.reply(known=True, running=child.running, exit_code=child.exit_code)
        else:
            known = service_id in self._registered
            connection.reply(known=known, running=self._registered.get(service_id, False))

    def _on_stop(self, connection: Connection, request: Request) -> None:
        """End a process, or note that a registered service is gone and will not come to be."""
        service_id = request["id"]
        child = self._children.get(service_id)
        if child is not None:
            child.stopping.append(connection)
            child.ask_to_end()
            return
        known = service_id in self._registered
        if known:
            self._registered[service_id] = False
            self._journal.add({"absent": service_id})
        connection.reply(known=known)

    def _on_wait(self, connection: Connection, request: Request) -> None:
        """Say when a process has ended by itself, and how."""
        child = self._children.get(request["id"])
        if child is None:
            connection.refuse(f"no process {request['id']!r}")
        else:
            child.waiting.append(connection)

    def _on_claim(self, connection: Connection, request: Request) -> None:
        self._claims.claim(connection, request["key"])

    def _on_settle(self, connection: Connection, request: Request) -> None:
        self._claims.settle(connection, request["key"], request["outcome"])

    def _on_disclaim(self, connection: Connection, request: Request) -> None:
        self._claims.disclaim(connection, request["key"])

    def _on_outcomes(self, connection: Connection, request: Request) -> None:
        """List what was settled under a prefix: what this run has started, for its report."""
        connection.reply(outcomes=self._claims.outcomes(request["prefix"]))

    def _on_lease(self, connection: Connection, request: Request) -> None:
        self._leases.lease(connection, request)

    def _on_release(self, connection: Connection, request: Request) -> None:
        self._leases.release(connection, request)

    def _on_keep(self, connection: Connection, request: Request) -> None:
        """Outlive the session, for a person to look at what it left."""
        self._kept.append(request["note"])
        connection.reply()

    def _on_kept(self, connection: Connection, request: Request) -> None:
        """Say what was kept, and whether the session that kept it is over."""
        connection.reply(notes=self._kept, over=not self._owner_alive)

    def _on_shutdown(self, connection: Connection, request: Request) -> None:
        """End the run. `hasty`: the client need not wait for what an engine will do by itself."""
        if self._kept and not request.get("kept_too"):
            connection.reply(kept=True)
            while self._ahead:
                child, _ = self._ahead.popitem()[1]
                self._children.abandon(child)
            return
        self._kept.clear()
        (self._hasty if request.get("hasty") else self._farewells).append(connection)
        self._end_at = time.monotonic()

    # -- the end

    def _close_up(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._run_directory, "warden.sock"))
        self._clients.close()
        self._children.end_all(but=self._sweeper)
        cleaner = _clean.Cleaner(self._journal.records, self._run_id)
        engines_will_do = cleaner.begin_to_remove_containers()
        cleaner.run_helpers()
        if engines_will_do:
            self._say_farewell(self._hasty)
            self._hasty = []
        cleaner.finish_removing_containers()
        self._say_farewell([*self._hasty, *self._farewells])
        cleaner.await_containers()
        cleaner.remove_directories()
        _clean.finish(self._run_directory, cleaner.failures)
        if self._sweeper is not None:
            _end_sweeper(self._sweeper)

    def _say_farewell(self, connections: list[Connection]) -> None:
        for connection in connections:
            connection.reply()


def _end_sweeper(pid: int) -> None:
    """Let it finish what it can in a moment. The next run does the rest."""
    deadline = time.monotonic() + SWEEPER_GRACE
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            _processes.kill_tree(pid)
            return
        time.sleep(0.01)
