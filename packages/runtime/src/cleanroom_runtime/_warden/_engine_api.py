"""Asking a container engine, with the standard library alone.

An engine is a record of plain data, as it stands in a run's journal:

- `socket`: path of its unix socket, or
- `host`, `port`: its TCP address, with
  `tls`: whether to `verify` it, and the folder `certificates` with `ca.pem`, `cert.pem`, `key.pem`;
- or `ssh`: the arguments of `ssh` that lead to it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
from collections.abc import Callable, Generator
from typing import Any

EngineRecord = dict[str, Any]


def ask(
    engine: EngineRecord,
    method: str,
    path: str,
    *,
    body: dict[str, Any] | bytes | None = None,
    timeout: float = 20.0,
) -> tuple[int, bytes]:
    """Send one request and return the status and the body of the answer.

    Args:
        engine: Where the engine is.
        method: For instance `"GET"`.
        path: Path and query of the engine's HTTP API.
        body: What is sent along: what becomes JSON, or a tar archive.
        timeout: Seconds to wait for the connection, and for each part of the answer.

    Raises:
        OSError: The engine cannot be reached, or its answer is no HTTP.
    """
    return begin(engine, method, path, body=body, timeout=timeout)()


def begin(
    engine: EngineRecord,
    method: str,
    path: str,
    *,
    body: dict[str, Any] | bytes | None = None,
    timeout: float = 20.0,
) -> Callable[[], tuple[int, bytes]]:
    """Send one request and return what waits for the answer, which has to be called. See `ask`."""
    with contextlib.ExitStack() as held:
        connection = held.enter_context(contextlib.closing(_Connection(engine, timeout)))
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        with _as_os_error():
            connection.request(method, path, content, {"Content-Type": kind} if content else {})
        sent = held.pop_all()

    def finish() -> tuple[int, bytes]:
        with sent, _as_os_error():
            response = connection.getresponse()
            return response.status, response.read()

    return finish


def reason_in(body: bytes) -> str:
    """Return the engine's own words in the body of a refusal."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()


@contextlib.contextmanager
def open_stream(engine: EngineRecord, timeout: float) -> Generator[socket.socket]:
    """Connect to the engine, by whatever leads there.

    Raises:
        OSError: It cannot be reached.
    """
    with contextlib.ExitStack() as held:
        if "socket" in engine:
            stream = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            stream.settimeout(timeout)
            stream.connect(engine["socket"])
        elif "ssh" in engine:
            stream, theirs = socket.socketpair()
            held.enter_context(stream)
            stream.settimeout(timeout)
            with theirs:
                process = _start_ssh(engine["ssh"], theirs)
            held.callback(process.wait)
            held.callback(process.kill)
        else:
            stream = socket.create_connection((engine["host"], engine["port"]), timeout)
            held.enter_context(stream)
            if "tls" in engine:
                stream = _encrypted(stream, engine["host"], engine["tls"])
                held.enter_context(stream)
        yield stream


@contextlib.contextmanager
def _as_os_error() -> Generator[None]:
    try:
        yield
    except http.client.HTTPException as exc:
        raise ConnectionError(f"no proper answer from the engine: {exc!r}") from exc


class _Connection(http.client.HTTPConnection):
    """HTTP over a stream to the engine."""

    def __init__(self, engine: EngineRecord, timeout: float) -> None:
        super().__init__("localhost")
        self._engine = engine
        self._seconds = timeout
        self._held = contextlib.ExitStack()

    def connect(self) -> None:
        self.sock = self._held.enter_context(open_stream(self._engine, self._seconds))

    def close(self) -> None:
        super().close()
        self._held.close()


def _start_ssh(arguments: list[str], stream: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["ssh", "-o", "BatchMode=yes", "-T", *arguments, "docker system dial-stdio"],
        stdin=stream.fileno(), stdout=stream.fileno(), stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _encrypted(plain: socket.socket, host: str, tls: dict[str, Any]) -> socket.socket:
    import ssl

    folder = tls.get("certificates")
    authority = os.path.join(folder, "ca.pem") if folder else None
    context = ssl.create_default_context(
        cafile=authority if authority and os.path.exists(authority) else None
    )
    # Certificates made as docker's documentation says lack what Python 3.13 insists on.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not tls["verify"]:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if folder:
        certificate, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
        if os.path.exists(certificate):
            context.load_cert_chain(certificate, key)
    return context.wrap_socket(plain, server_hostname=host)
