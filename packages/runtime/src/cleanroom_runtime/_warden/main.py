"""Entry of the warden process.

Started as ``RUN_DIRECTORY LISTENER_FD FIRST_FD LOCK_FD OWNER_PID ROOT...`` by the first client of
a run. The lock is held by whoever has its descriptor open, so passing it on passes it over; the
roots are the folders in which the runs of this user live.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

from cleanroom_runtime._warden._server import Warden


def main(arguments: list[str]) -> None:
    """Leave the process that started us, so that it need not wait for us, then serve the run."""
    if os.fork():
        os._exit(0)
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    run_directory, roots = Path(arguments[0]), [Path(root) for root in arguments[5:]]
    listener_fd, first_fd, _lock_fd, owner = map(int, arguments[1:5])
    listener, first = socket.socket(fileno=listener_fd), socket.socket(fileno=first_fd)
    try:
        Warden(run_directory, listener, first, owner, roots).serve()
    except BaseException as exc:
        sys.stderr.write(f"warden failed: {exc!r}\n")
        raise
