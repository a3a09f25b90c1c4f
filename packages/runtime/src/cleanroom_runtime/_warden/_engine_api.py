"""Asking a container engine, with the standard library alone.

An engine is a record of plain data, as it stands in a run's journal:

- `socket`: path of its unix socket, or
- `host`, `port`: its TCP address, with
  `tls`: whether to `verify` it, and the folder `certificates` with `ca.pem`, `cert.pem`, `key.pem`;
- or `ssh`: the arguments of `ssh` that lead to it.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from typing import Any

EngineRecord = dict[str, Any]


def ask(
    engine: EngineRecord, method: str, path: str, *, timeout: float = 20.0
) -> tuple[int, bytes]:
    """Send one request and return the status and the body of the answer.

    Args:
        engine: Where the engine is.
        method: For instance `"GET"`.
        path: Path and query of the engine's HTTP API.
        timeout: Seconds to wait for the connection, and for each part of the answer.

    Raises:
        OSError: The engine cannot be reached, or its answer is no HTTP.
    """
    connection = _Connection(engine, timeout)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as exc:
        raise ConnectionError(f"no proper answer from the engine: {exc!r}") from exc
    finally:
        connection.close()


def reason_in(body: bytes) -> str:
    """Return the engine's own words in the body of a refusal."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()


class _Connection(http.client.HTTPConnection):
    """HTTP over whatever leads to the engine."""

    def __init__(self, engine: EngineRecord, timeout: float) -> None:
        super().__init__(
            engine.get("host") or "localhost", engine.get("port") or 80, timeout=timeout
        )
        self._engine = engine
        self._seconds = timeout
        self._ssh: subprocess.Popen[bytes] | None = None

    def connect(self) -> None:
        if "socket" in self._engine:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self._seconds)
            self.sock.connect(self._engine["socket"])
        elif "ssh" in self._engine:
            self.sock, self._ssh = _over_ssh(self._engine["ssh"])
            self.sock.settimeout(self._seconds)
        else:
            super().connect()
            if "tls" in self._engine:
                self.sock = _encrypted(self.sock, self.host, self._engine["tls"])

    def close(self) -> None:
        super().close()
        if self._ssh is not None:
            self._ssh.kill()
            self._ssh.wait()
            self._ssh = None


def start_ssh(arguments: list[str], stream: socket.socket) -> subprocess.Popen[bytes]:
    """Start an ssh that connects the stream with the engine there. It ends with the stream.

    Raises:
        OSError: There is no program `ssh`.
    """
    return subprocess.Popen(
        ["ssh", "-o", "BatchMode=yes", "-T", *arguments, "docker system dial-stdio"],
        stdin=stream.fileno(), stdout=stream.fileno(), stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _over_ssh(arguments: list[str]) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            return ours, start_ssh(arguments, theirs)
        except OSError:
            ours.close()
            raise


def _encrypted(plain: socket.socket, host: str, tls: dict[str, Any]) -> socket.socket:
    import ssl

    folder = tls.get("certificates")
    authority = os.path.join(folder, "ca.pem") if folder else None
    context = ssl.create_default_context(
        cafile=authority if authority and os.path.exists(authority) else None
    )
    if not tls["verify"]:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if folder:
        certificate, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
        if os.path.exists(certificate):
            context.load_cert_chain(certificate, key)
    return context.wrap_socket(plain, server_hostname=host)
