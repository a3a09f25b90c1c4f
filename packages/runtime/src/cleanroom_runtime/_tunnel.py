"""A local socket that leads to an engine elsewhere.

Docker's client is only ever given a local socket. By itself it would need another package for
ssh, would refuse on Python 3.13 certificates that docker takes, and would follow the proxies and
certificates that are set up for the web.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Generator
from pathlib import Path

from cleanroom_runtime._engine import Engine
from cleanroom_runtime._warden._engine_api import EngineRecord, open_stream

_CONNECT_TIMEOUT = 20.0
_CHUNK = 65536


@contextlib.contextmanager
def within_reach(engine: Engine, path: Path) -> Generator[str]:
    """Yield the URL of a local socket that leads to the engine, its own if it has one.

    Args:
        engine: The engine.
        path: Where to listen, in a folder that is nobody else's.
    """
    if engine.url.startswith("unix://"):
        yield engine.url
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        arguments = (listener, engine.warden_record())
        thread = threading.Thread(target=_serve, args=arguments, daemon=True)
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            path.unlink()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # ends the wait for the next one
            thread.join()


def _serve(listener: socket.socket, engine: EngineRecord) -> None:
    threads: list[threading.Thread] = []
    while True:
        try:
            near, _ = listener.accept()
        except OSError:
            break
        threads.append(threading.Thread(target=_relay, args=(near, engine), daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join()


def _relay(near: socket.socket, engine: EngineRecord) -> None:
    """Pass on what either side sends until one of them closes, or cannot be reached."""
    with near, contextlib.suppress(OSError), open_stream(engine, _CONNECT_TIMEOUT) as far:
        while True:
            ready, _, _ = select.select([near, far], [], [])
            if near in ready and not _pass_on(near, far):
                return
            if far in ready and not _pass_on_what_is_there(far, near):
                return


def _pass_on(source: socket.socket, target: socket.socket) -> bool:
    data = source.recv(_CHUNK)
    target.sendall(data)
    return bool(data)


def _pass_on_what_is_there(source: socket.socket, target: socket.socket) -> bool:
    """Read until nothing is left: TLS may hold more, or nothing, than its socket shows."""
    source.setblocking(False)
    try:
        while data := source.recv(_CHUNK):
            target.sendall(data)
        return False
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    finally:
        source.settimeout(_CONNECT_TIMEOUT)
