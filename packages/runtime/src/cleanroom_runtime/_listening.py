"""Where a service listens that does not answer where it was expected to."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cleanroom import ContainerError

if TYPE_CHECKING:
    from cleanroom_runtime._engine import Engine

_LISTENING = "0A"
_DNS_OF_DOCKER = "127.0.0.11"
_LAST_KNOCK = 1.0
_PATIENCE = 5.0


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


def of_container(metadata: Mapping[str, str], port: int, engine: Engine) -> str | None:
    """Say where a container listens, if not at this port or only at its own loopback address.

    Empty where it does listen there; `None` where that cannot be found out.
    """
    from cleanroom_runtime._inside import Inside

    inside = Inside(metadata["container_id"], engine)
    try:
        tables = inside.run(["cat", "/proc/net/tcp", "/proc/net/tcp6"], timeout=_PATIENCE).stdout
    except ContainerError:
        return None
    if "local_address" not in tables:
        return None  # as without `cat`; without IPv6, one of the two is there
    hosts: dict[int, set[str]] = {}
    for host, each, _ in _listeners_in(tables):
        if host != _DNS_OF_DOCKER:
            hosts.setdefault(each, set()).add(host)
    if port not in hosts:
        others = [f"{each}{_only_inside(found)}" for each, found in sorted(hosts.items())]
        found = f"but on {', '.join(others)}" if others else "nor on any other one yet"
        return f"nothing listens on port {port} inside the container, {found}"
    if where := _only_inside(hosts[port]):
        return (
            f"port {port} is listened on inside the container{where}, where nobody else gets to: "
            "the service has to bind 0.0.0.0"
        )
    return ""


def by_knocking(metadata: Mapping[str, str], port: int) -> str:
    """Say if nobody listens at the main port of a container.

    The engine accepts connections at a published port for anybody.
    """
    from cleanroom_runtime._waits import is_listened_on

    with contextlib.suppress(OSError):
        if not is_listened_on((metadata["host"], int(metadata["port"])), _LAST_KNOCK):
            return (
                f"nothing listens on port {port} inside the container, or only at 127.0.0.1 "
                "there: the service has to listen at 0.0.0.0"
            )
    return ""


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


def _only_inside(hosts: set[str]) -> str:
    """Say if all these addresses are such that only who is there as well can connect to them."""
    if all(host.startswith("127.") or host == "::1" for host in hosts):
        return f" at {' and '.join(sorted(hosts))} only"
    return ""


def _listeners() -> Iterator[tuple[str, int, str]]:
    """Address, port and inode of each TCP socket of this system that listens."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            yield from _listeners_in(Path(f"/proc/net/{table}").read_text())


def _listeners_in(tables: str) -> Iterator[tuple[str, int, str]]:
    """The same for tables as the kernel shows them, for IPv4 and for IPv6."""
    for line in tables.splitlines():
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTENING:
            address, _, port = fields[1].partition(":")
            yield _address(address), int(port, 16), fields[9]


def _address(digits: str) -> str:
    """An address, of which the kernel shows words of 32 bits in the machine's order of bytes."""
    words = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
    order = "<" if sys.byteorder == "little" else ">"
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    # One of IPv4 that a socket of IPv6 has is reached as the former.
    return socket.inet_ntop(family, struct.pack(f"{order}{len(words)}I", *words)).removeprefix(
        "::ffff:"
    )
