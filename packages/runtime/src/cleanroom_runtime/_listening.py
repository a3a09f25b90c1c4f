"""Where a service listens that does not answer where it was expected to."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cleanroom_runtime._engine import Engine

_LISTENING = "0A"


def of_process(pid: int, port: int) -> str:
    """Say where a process and its children listen, if not at this port of 127.0.0.1.

    Empty where they do listen there, and where the system does not tell.
    """
    if not os.access(f"/proc/{pid}/fd", os.R_OK | os.X_OK):
        return ""
    inodes = {inode for each in _family(pid) for inode in _sockets(each)}
    found = sorted({(port, host) for host, port, inode in _listeners() if inode in inodes})
    if any(each == port and host in ("127.0.0.1", "0.0.0.0", "::") for each, host in found):  # noqa: S104
        return ""
    if not found:
        return f"it listens on no port yet, and on {port} it was expected"
    places = ", ".join(
        f"[{host}]:{each}" if ":" in host else f"{host}:{each}" for each, host in found
    )
    return f"it listens at {places}, and at 127.0.0.1:{port} it was expected"


def of_image(image: str, port: int, engine: Engine) -> str:
    """Say which ports an image exposes, if this is none of them; empty where it exposes none."""
    from cleanroom_runtime._warden._engine_api import ask

    with contextlib.suppress(OSError, ValueError, KeyError):
        status, body = ask(engine.warden_record(), "GET", f"/images/{image}/json")
        exposed = json.loads(body)["Config"].get("ExposedPorts") or {} if status == 200 else {}
        ports = sorted(int(each.removesuffix("/tcp")) for each in exposed if each.endswith("/tcp"))
        if ports and port not in ports:
            listed = ", ".join(map(str, ports))
            return f"the image exposes port {listed}, and on {port} it was expected to listen"
    return ""


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError, ValueError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield from _family(int(child))


def _sockets(pid: int) -> Iterator[str]:
    """The inodes of the sockets that a process has open."""
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                if target.startswith("socket:["):
                    yield target[8:-1]


def _listeners() -> Iterator[tuple[str, int, str]]:
    """Address, port and inode of each TCP socket of this system that listens."""
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING:
                    address, _, port = fields[1].partition(":")
                    yield _address(address, family), int(port, 16), fields[9]


def _address(digits: str, family: socket.AddressFamily) -> str:
    """An address, of which the kernel shows words of 32 bits in the machine's order of bytes."""
    words = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
    order = "<" if sys.byteorder == "little" else ">"
    return socket.inet_ntop(family, struct.pack(f"{order}{len(words)}I", *words))
