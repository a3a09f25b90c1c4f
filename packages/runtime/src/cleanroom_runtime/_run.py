"""The run this process takes part in.

A run begins with its first service. All processes of one test session (pytest, its xdist
workers) share one run, and so does everything that one plain script starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cleanroom import CleanroomEnvironment, CleanroomError, InternalError, ServiceError
from cleanroom_runtime import _sessions
from cleanroom_runtime._folders import run_root, run_roots
from cleanroom_runtime._line import Line, Reply, open_line

_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"
"""Of the names of services: few of them make many names, as the path of a socket is short."""


class RunAddress(NamedTuple):
    """What another process needs to take part in a run. Plain data, to be sent there.

    Attributes:
        run_id: The run's id, also the name of its directory.
        root: The folder in which runs of this user live.
        owner: Pid of the process with whose end the run ends; 0 in an address that was made up
            from a service's id, which is good for finding the run but not for starting it.
    """

    run_id: str
    root: str
    owner: int

    @classmethod
    def new(cls) -> RunAddress:
        """Return the address of a run of this process's own. Nothing is made yet."""
        return cls(f"r{os.urandom(4).hex()}", str(run_root()), os.getpid())

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return Path(self.root, self.run_id)


class WardenRefusalError(InternalError):
    """The warden could not do what it was asked to."""


class Run:
    """One process's part in a run.

    Args:
        address: Where the run is.
        joined: Whether it is that of a pytest session, in this process or another one.
        note: Where to note how servers are launched, for the next run; see `_ahead`.
    """

    def __init__(
        self, address: RunAddress, *, joined: bool = False, note: Path | None = None
    ) -> None:
        self.address, self.joined, self.note = address, joined, note
        self._names: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        """Begin without connections."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[Line] = []
        self._connected = False
        self._lost = False

    @property
    def id(self) -> str:
        """The run's id."""
        return self.address.run_id

    @property
    def lost(self) -> bool:
        """Whether its warden died while this process was connected to it."""
        return self._lost

    def new_service_id(self) -> str:
        """Return an id for a service of this run, which no other one has had in this process."""
        while True:
            name = "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(5))
            if name not in self._names:
                self._names.add(name)
                return f"{self.id}-s{name}"

    def request(self, op: str, **fields: Any) -> Reply:
        """Ask the warden and return its reply, starting it if need be.

        Raises:
            InternalError: The warden refused or is gone.
            ServiceError: The warden could not be started.
        """
        return self.begin(op, **fields)()

    def begin(self, op: str, **fields: Any) -> Callable[[], Reply]:
        """Send a request and return what waits for its reply, to do something else meanwhile.

        Both raise what `request` raises.
        """
        line = self._say(Line.send, {"op": op, **fields})

        def finish() -> Reply:
            try:
                reply = line.receive()
            except BaseException as exc:
                line.close()  # its reply may still come: nobody else may read it
                if isinstance(exc, OSError):
                    raise self._gone() from exc
                raise
            with self._lock:
                self._idle.append(line)
            if not reply.get("ok"):
                raise WardenRefusalError(str(reply.get("error", "no reason given")))
            return reply

        return finish

    def wake(self) -> None:
        """Start the warden if need be, and do not wait until it is up. Raises as `request`."""
        line = self._take()
        with self._lock:
            self._idle.append(line)

    def tell(self, op: str, **fields: Any) -> None:
        """Send a request, and never learn what came of it. Raises as `request`."""
        line = self._say(Line.tell, {"op": op, **fields})
        with self._lock:
            self._idle.append(line)

    def once(self, key: str, make: Callable[[], str]) -> str:
        """Have something done by one process of the run, and return its outcome to all.

        Args:
            key: Names what is done.
            make: Does it and returns its outcome. Called in one process; where that dies, in the
                next. An error of our tree reaches all of them, unless the start that this is part
                of was given up before, which is no fault of what is done: then, too, the next one
                does it.
        """
        reply = self.request("claim", key=key)
        if not reply["granted"]:
            outcome = json.loads(reply["outcome"])
            if "error" in outcome:
                raise CleanroomError.from_dict(outcome["error"])
            return str(outcome["value"])
        try:
            value = make()
        except BaseException as exc:
            given_up = CleanroomEnvironment.given_up()
            with contextlib.suppress(CleanroomError):  # this one matters more
                if isinstance(exc, CleanroomError) and not given_up:
                    self.request("settle", key=key, outcome=json.dumps({"error": exc.to_dict()}))
                else:
                    self.request("disclaim", key=key)
            raise
        self.request("settle", key=key, outcome=json.dumps({"value": value}))
        return value

    def outcomes(self, prefix: str) -> dict[str, Reply]:
        """Return what was done once under keys with this prefix: its value or its error."""
        listed = self.request("outcomes", prefix=prefix)["outcomes"]
        return {key: json.loads(outcome) for key, outcome in listed.items()}

    def alive(self) -> bool:
        """Whether the run has a warden. Starts none."""
        self._notice_fork()
        with self._lock:
            if any(line.is_open() for line in self._idle):
                return True
            try:
                line = Line.connect(self.address.directory)
            except OSError:
                return False
            self._idle.append(line)
            self._connected = True
            return True

    def over(self) -> bool:
        """Whether the run has ended as it should, or never began. A killed warden ends nothing."""
        return not self.alive() and not (self.address.directory / "warden.sock").exists()

    def shut_down(self, *, kept_too: bool = False) -> bool:
        """End the run: all its services stop. Returns whether it was kept alive instead."""
        return self.begin_to_shut_down(kept_too=kept_too)()

    def begin_to_shut_down(
        self, *, kept_too: bool = False, hasty: bool = False
    ) -> Callable[[], bool]:
        """Tell the run to end, and return what waits until it has, see `shut_down`.

        Who is `hasty` does not wait for containers that their engine was told to remove.
        """
        finish: Callable[[], Reply] | None = None
        if self.alive():
            with contextlib.suppress(InternalError):
                finish = self.begin("shutdown", kept_too=kept_too, hasty=hasty)

        def wait() -> bool:
            reply: Reply = {}
            with contextlib.suppress(InternalError):  # it may have ended before it could say so
                reply = finish() if finish else {}
            self.disconnect()
            return bool(reply.get("kept"))

        return wait

    def disconnect(self) -> None:
        """Close this process's connections. The run ends when its owner ends."""
        with self._lock:
            for line in self._idle:
                line.close()
            self._idle.clear()
            self._connected = self._lost = False

    def _gone(self) -> InternalError:
        self.disconnect()
        self._lost = True
        return InternalError(
            f"the warden of run {self.id} is gone, and with it the run's services: "
            "the run was ended, or the process was killed",
            hint="the next run removes what is left of this one; if the warden failed, "
            f"{self.address.directory / 'warden.log'} says why",
        )

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            for line in self._idle:  # its parent's, which keeps them
                line.close()
            self._begin()

    def _say(self, say: Callable[[Line, Reply], None], request: Reply) -> Line:
        """Say something over a connection that nobody else uses now, and return that."""
        line = self._take()
        try:
            say(line, request)
        except BaseException as exc:
            line.close()
            if isinstance(exc, OSError):
                raise self._gone() from exc
            raise
        return line

    def _take(self) -> Line:
        self._notice_fork()
        if self._lost:
            raise self._gone()
        with self._lock:
            if self._idle:
                return self._idle.pop()
        line = self._open()
        self._connected = True
        return line

    def _open(self) -> Line:
        address = self.address
        if self._connected or not address.owner:
            try:
                return Line.connect(address.directory)
            except OSError as exc:
                raise self._gone() from exc
        try:
            return open_line(address.directory, Path(address.root), address.owner)
        except OSError as exc:
            raise ServiceError(
                f"the run's directory {address.directory} could not be made, or the process that "
                f"watches over the run not be started: {exc}",
                hint="set TMPDIR to a writable folder on a disk that has room",
            ) from exc


_current: Run | None = None
_others: dict[str, Run] = {}
_current_lock = threading.Lock()


def current_run() -> Run:
    """Return the run this process takes part in, a new one of its own if it has joined none."""
    global _current
    with _current_lock:
        if _current is None or (_current.lost and not _current.joined):
            _current = Run(RunAddress.new())
        return _current


def join_run(address: RunAddress, note: Path | None = None) -> Run:
    """Take part in the run another process began, from now on."""
    global _current
    with _current_lock:
        _current = Run(address, joined=True, note=note)
        return _current


def joined_run() -> Run | None:
    """Return the run this process takes part in, if it does."""
    return _current


def leave_run(previous: Run | None) -> None:
    """Take part in another run again, or in none."""
    global _current
    _current = previous


def run_of(service_id: str) -> Run:
    """Return the run a service belongs to, by its id, which may be another process's run."""
    run_id = service_id.partition("-")[0]
    with _current_lock:
        if _current is not None and _current.id == run_id:
            return _current
        if run_id not in _others:
            _others[run_id] = Run(_find_run(run_id))
        return _others[run_id]


def _find_run(run_id: str) -> RunAddress:
    roots = [str(root) for root in run_roots()]
    found = [root for root in roots if Path(root, run_id).is_dir()]
    return RunAddress(run_id, (found or roots)[0], 0)


for _join in _sessions.under_way:
    _join()
