"""A local socket that leads to an engine behind ssh, by the `ssh` program of this machine.

Docker's client would need a package of its own for that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Generator
from pathlib import Path

from cleanroom_runtime._engine import Engine
from cleanroom_runtime._warden._engine_api import start_ssh


@contextlib.contextmanager
def within_reach(engine: Engine, path: Path) -> Generator[Engine]:
    """Yield the engine at an address that docker's client understands.

    Args:
        engine: Itself, unless it is behind ssh.
        path: Where to listen, in a folder that is nobody else's.
    """
    arguments = engine.warden_record().get("ssh")
    if arguments is None:
        yield engine
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=_serve, args=(listener, arguments), daemon=True)
        thread.start()
        try:
            yield dataclasses.replace(engine, url=f"unix://{path}")
        finally:
            path.unlink()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # ends the wait for the next one
            thread.join()


def _serve(listener: socket.socket, arguments: list[str]) -> None:
    """Give each connection an ssh of its own, which ends with it."""
    processes = []
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            break
        with connection, contextlib.suppress(OSError):
            processes.append(start_ssh(arguments, connection))
    for process in processes:
        process.kill()
        process.wait()
