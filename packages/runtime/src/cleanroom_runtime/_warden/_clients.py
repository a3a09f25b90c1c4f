"""The clients of a run: their connections, and whether the processes behind them are alive."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Connection:
    """One socket of a client. A client has one for each request it has under way."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.pid = 0
        self.unread = b""

    def reply(self, **answer: Any) -> None:
        """Send a reply; a client that is gone does not need it."""
        with contextlib.suppress(OSError):
            self.sock.setblocking(True)
            self.sock.sendall((json.dumps({"ok": True, **answer}) + "\n").encode())
            self.sock.setblocking(False)

    def refuse(self, error: str) -> None:
        """Send a reply that says what was wrong."""
        self.reply(ok=False, error=error)


class Clients:
    """Accepts connections, reads requests, and notices who is gone.

    A process is gone when it has died, also where a child that it forked holds its sockets open.
    Where the system cannot tell, it is gone when its last connection has closed.

    Args:
        selector: Where to wait for them.
        listener: The listening socket.
        requested: Called with a connection and one line it has sent.
        closed: Called with a connection that has closed.
        gone: Called with the pid of a process that is gone.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        listener: socket.socket,
        requested: Callable[[Connection, bytes], None],
        closed: Callable[[Connection], None],
        gone: Callable[[int], None],
    ) -> None:
        self._selector = selector
        self._listener = listener
        self._requested = requested
        self._closed = closed
        self._gone = gone
        self._connections: set[Connection] = set()
        self._watched: dict[int, int] = {}  # pid: its pidfd
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ, self._accept)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return any(connection.pid for connection in self._connections)

    def add(self, sock: socket.socket) -> None:
        """Read requests from this socket."""
        sock.setblocking(False)
        connection = Connection(sock)
        self._connections.add(connection)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(connection))

    def greet(self, connection: Connection, pid: int) -> None:
        """Note whose connection it is."""
        connection.pid = pid
        self.watch(pid)

    def watch(self, pid: int) -> bool:
        """Notice when this process dies. Returns whether that is possible."""
        if pid in self._watched:
            return True
        if not hasattr(os, "pidfd_open"):
            return False
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._died(pid)
            return True
        except OSError:
            return False
        self._watched[pid] = pidfd
        self._selector.register(pidfd, selectors.EVENT_READ, lambda: self._died(pid))
        return True

    def close(self) -> None:
        """Accept no more. Those who are connected learn of the end when this process ends."""
        self._selector.unregister(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            self.add(self._listener.accept()[0])

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
            if connection.pid not in self._watched and not self._connected(connection.pid):
                self._gone(connection.pid)
            return
        *lines, connection.unread = (connection.unread + data).split(b"\n")
        for line in lines:
            if connection in self._connections:  # else its greeting came from the dead
                self._requested(connection, line)

    def _drop(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._selector.unregister(connection.sock)
        connection.sock.close()
        self._closed(connection)

    def _connected(self, pid: int) -> bool:
        return any(connection.pid == pid for connection in self._connections)

    def _died(self, pid: int) -> None:
        pidfd = self._watched.pop(pid, None)
        if pidfd is not None:
            self._selector.unregister(pidfd)
            os.close(pidfd)
        for connection in [each for each in self._connections if each.pid == pid]:
            self._drop(connection)
        self._gone(pid)
