"""The warden's loop: one thread that answers clients, watches them, and watches its children.

Requests and replies are JSON objects, one a line, over a unix socket. A reply carries `ok` and,
where it is false, `error`. Some replies come late: to `claim` when another client has finished
what both want, to `stop` when the process is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cleanroom_runtime._warden import _children, _clean
from cleanroom_runtime._warden._journal import Journal

Request = dict[str, Any]

OWNER_GRACE = 2.0
"""Seconds the workers of a run keep their services after the process that began it is gone."""


@dataclass(eq=False)
class Connection:
    """One socket of a client. A client has one for each request it has under way."""

    sock: socket.socket
    pid: int = 0
    buffer: bytes = b""

    def reply(self, **answer: Any) -> None:
        """Send a reply; a client that is gone does not need it."""
        with contextlib.suppress(OSError):
            self.sock.setblocking(True)
            self.sock.sendall((json.dumps({"ok": True, **answer}) + "\n").encode())
            self.sock.setblocking(False)

    def refuse(self, error: str) -> None:
        """Send a reply that says what was wrong."""
        self.reply(ok=False, error=error)


@dataclass
class Claim:
    """Something that one client does for all: who does it, how it ended, who waits."""

    owner: int
    outcome: str | None = None
    waiting: list[Connection] = field(default_factory=list)


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
        run_directory: Path,
        listener: socket.socket,
        first: socket.socket,
        owner: int,
        roots: list[Path],
    ) -> None:
        self._run_directory = run_directory
        self._run_id = run_directory.name
        self._owner = owner
        self._owner_alive = True
        self._journal = Journal(run_directory / "journal")
        self._selector = selectors.DefaultSelector()
        self._listener = listener
        self._connections: set[Connection] = set()
        self._watched: dict[int, int] = {}  # pid of a client: its pidfd
        self._children: dict[str, _children.Child] = {}
        self._registered: dict[str, Request] = {}
        self._stopping: dict[str, list[Connection]] = {}
        self._claims: dict[str, Claim] = {}
        self._leases: dict[str, dict[int, int]] = {}  # pool: index: pid of its holder
        self._farewells: list[Connection] = []
        self._kept: list[str] = []
        self._end_at: float | None = None
        self._roots = roots
        self._sweeper: int | None = None
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._selector.register(
            wake_read, selectors.EVENT_READ, lambda: os.read(wake_read, 4096) and None
        )
        self._watch(owner)
        self._add(first)

    def serve(self) -> None:
        """Answer until the run is over, then end and remove everything it owns."""
        while not self._over():
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._look_after_children()
            self._look_after_owner()
            if self._sweeper is None and self._journal.read():
                self._sweeper = self._start_sweeper()  # now that the first service is on its way
                _children.adopt_orphans()
        self._close_up()

    # -- clients

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            self._add(self._listener.accept()[0])

    def _add(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        connection = Connection(sock)
        self._connections.add(connection)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(connection))

    def _read(self, connection: Connection) -> None:
        if connection not in self._connections:
            return
        try:
            data = connection.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        connection.buffer += data
        while b"\n" in connection.buffer:
            line, connection.buffer = connection.buffer.split(b"\n", 1)
            self._handle(connection, line)

    def _handle(self, connection: Connection, line: bytes) -> None:
        try:
            request = json.loads(line)
            answer = getattr(self, f"_on_{request['op']}", None)
            if answer is None:
                connection.refuse(f"unknown request {request['op']!r}")
            else:
                answer(connection, request)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            connection.refuse(f"malformed request: {exc!r}")

    def _drop(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._selector.unregister(connection.sock)
        connection.sock.close()
        if not any(other.pid == connection.pid for other in self._connections):
            self._client_gone(connection.pid)

    def _watch(self, pid: int) -> None:
        """Notice the death of a process even where a child of it holds its sockets open."""
        if pid in self._watched or not hasattr(os, "pidfd_open"):
            return
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return
        self._watched[pid] = pidfd
        self._selector.register(pidfd, selectors.EVENT_READ, lambda: self._process_died(pid))

    def _process_died(self, pid: int) -> None:
        pidfd = self._watched.pop(pid)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        for connection in [each for each in self._connections if each.pid == pid]:
            self._drop(connection)
        if pid == self._owner:
            self._owner_gone()

    def _client_gone(self, pid: int) -> None:
        for key, claim in list(self._claims.items()):
            if claim.owner == pid and claim.outcome is None:
                self._pass_on(key, claim)
        for pool in self._leases.values():
            for index in [index for index, holder in pool.items() if holder == pid]:
                del pool[index]
        if not self._owner_alive and not self._clients():
            self._owner_gone()

    def _owner_gone(self) -> None:
        """The run ends: at once when nobody is left, else when its workers had time to finish."""
        self._owner_alive = False
        due = time.monotonic() + (OWNER_GRACE if self._clients() else 0)
        self._end_at = due if self._end_at is None else min(self._end_at, due)

    def _clients(self) -> bool:
        return any(connection.pid for connection in self._connections)

    def _look_after_owner(self) -> None:
        """Without pidfd, find out by asking."""
        if self._owner_alive and self._owner not in self._watched:
            try:
                os.kill(self._owner, 0)
            except ProcessLookupError:
                self._owner_gone()
            except OSError:
                pass

    # -- requests

    def _on_hello(self, connection: Connection, request: Request) -> None:
        connection.pid = int(request["pid"])
        self._watch(connection.pid)
        connection.reply(run=self._run_id)

    def _on_spawn(self, connection: Connection, request: Request) -> None:
        try:
            child = _children.spawn(request, self._journal)
        except OSError as exc:
            connection.refuse(exc.strerror or str(exc))
            return
        self._children[child.id] = child
        connection.reply(pid=child.pid)

    def _on_register(self, connection: Connection, request: Request) -> None:
        """Note something the client is about to make: a service, an engine, a helper to run."""
        for kind in ("engine", "helper", "directory"):
            if kind in request:
                record: Request = {kind: request[kind]}
                if record not in self._journal.read():
                    self._journal.add(record)
        if "id" in request:
            self._registered[request["id"]] = {"running": True, **request.get("facts", {})}
        connection.reply()

    def _on_status(self, connection: Connection, request: Request) -> None:
        child = self._children.get(request["id"])
        if child is not None:
            _children.reap(child)
            connection.reply(known=True, running=child.running, exit_code=child.exit_code)
        elif request["id"] in self._registered:
            connection.reply(known=True, running=self._registered[request["id"]]["running"])
        else:
            connection.reply(known=False, running=False)

    def _on_stop(self, connection: Connection, request: Request) -> None:
        child = self._children.get(request["id"])
        if child is None:
            registered = self._registered.get(request["id"])
            if registered is not None:
                registered["running"] = False
            connection.reply(known=registered is not None)
            return
        self._stopping.setdefault(child.id, []).append(connection)
        _children.reap(child)
        _children.ask_to_end(child)

    def _on_claim(self, connection: Connection, request: Request) -> None:
        key = request["key"]
        claim = self._claims.get(key)
        if claim is None:
            self._claims[key] = Claim(owner=connection.pid)
            connection.reply(granted=True)
        elif claim.outcome is not None:
            connection.reply(granted=False, outcome=claim.outcome)
        else:
            claim.waiting.append(connection)

    def _on_settle(self, connection: Connection, request: Request) -> None:
        claim = self._claims.get(request["key"])
        if claim is None:
            connection.refuse("nothing was claimed under this key")
            return
        claim.outcome = request["outcome"]
        for waiter in claim.waiting:
            waiter.reply(granted=False, outcome=claim.outcome)
        claim.waiting.clear()
        connection.reply()

    def _on_disclaim(self, connection: Connection, request: Request) -> None:
        claim = self._claims.get(request["key"])
        if claim is not None and claim.outcome is None:
            self._pass_on(request["key"], claim)
        connection.reply()

    def _pass_on(self, key: str, claim: Claim) -> None:
        """The one who did it for all is gone: the next in line does it."""
        del self._claims[key]
        waiting = [each for each in claim.waiting if each in self._connections]
        if waiting:
            self._claims[key] = Claim(owner=waiting[0].pid, waiting=waiting[1:])
            waiting[0].reply(granted=True)

    def _on_lease(self, connection: Connection, request: Request) -> None:
        pool = self._leases.setdefault(request["pool"], {})
        size = int(request["size"])
        index = next((index for index in range(size) if index not in pool), None)
        if index is None:
            connection.refuse(f"all {size} are leased")
            return
        pool[index] = connection.pid
        connection.reply(index=index)

    def _on_release(self, connection: Connection, request: Request) -> None:
        self._leases.get(request["pool"], {}).pop(int(request["index"]), None)
        connection.reply()

    def _on_outcomes(self, connection: Connection, request: Request) -> None:
        """List what was settled under a prefix: what this run has started, for its report."""
        prefix = request["prefix"]
        connection.reply(
            outcomes={
                key: claim.outcome
                for key, claim in self._claims.items()
                if key.startswith(prefix) and claim.outcome is not None
            }
        )

    def _on_keep(self, connection: Connection, request: Request) -> None:
        """Outlive the session, for a person to look at what it left."""
        self._kept.append(request["note"])
        connection.reply()

    def _on_kept(self, connection: Connection, request: Request) -> None:
        connection.reply(notes=self._kept)

    def _on_shutdown(self, connection: Connection, request: Request) -> None:
        if self._kept and not request.get("kept_too"):
            connection.reply(kept=True)
            return
        self._kept.clear()
        self._farewells.append(connection)
        self._end_at = time.monotonic()

    # -- children

    def _look_after_children(self) -> None:
        for child in self._children.values():
            if not child.running and child.id not in self._stopping:
                continue
            if _children.reap(child):
                waiting = self._stopping.pop(child.id, [])
                if waiting:
                    _clean.remove_directories(child.directories)
                for connection in waiting:
                    connection.reply(known=True, exit_code=child.exit_code)
            else:
                _children.kill_if_late(child)

    # -- the end

    def _start_sweeper(self) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                _clean.sweep([root for root in self._roots if root.is_dir()])
            finally:
                os._exit(0)
        return pid

    def _over(self) -> bool:
        if self._kept:
            return False
        return self._end_at is not None and time.monotonic() >= self._end_at

    def _patience(self) -> float | None:
        """Seconds until something is due without an event, if anything is."""
        due = [self._end_at] if self._end_at is not None and not self._kept else []
        due += [
            child.kill_at for child in self._children.values() if child.running and child.kill_at
        ]
        if self._owner_alive and self._owner not in self._watched:
            due.append(time.monotonic() + 0.5)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _close_up(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._run_directory / "warden.sock")
        self._listener.close()
        for child in self._children.values():
            _children.reap(child)
            _children.ask_to_end(child)
        while any(not _children.reap(child) for child in self._children.values()):
            for child in self._children.values():
                _children.kill_if_late(child)
            select.select([], [], [], 0.002)
        _children.end_orphans(but=self._sweeper)
        records = [record for record in self._journal.read() if "pid" not in record]
        beyond = [record for record in records if "directory" not in record]
        _clean.clean(beyond, self._run_id)
        for connection in self._farewells:
            connection.reply()
        _clean.clean(records, self._run_id, thorough=True)
        if self._sweeper is not None:
            os.waitpid(self._sweeper, 0)
        _clean.remove_run_directory(self._run_directory)
