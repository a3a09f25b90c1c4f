"""Entry of the warden process.

Started as ``RUN_DIRECTORY LISTENER_FD FIRST_FD LOCK_FD OWNER_PID ROOT...`` by the first client of
a run. The lock is held by whoever has its descriptor open, so passing it on passes it over; the
roots are the folders in which the runs of this user live.
"""

from __future__ import annotations

import os
import signal
import socket

from ._server import Warden


def main(arguments: list[str]) -> None:
    """Leave the process that started us, so that it need not wait for us, then serve the run."""
    if os.fork():
        os._exit(0)
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    listener_fd, first_fd, lock_fd, owner = map(int, arguments[1:5])
    for fd in (listener_fd, first_fd, lock_fd):
        os.set_inheritable(fd, False)  # a server that outlives us must not look like us
    listener, first = socket.socket(fileno=listener_fd), socket.socket(fileno=first_fd)
    Warden(arguments[0], listener, first, owner, arguments[5:]).serve()
