"""Where a container's port is reached from this process, and what must be set up for that."""

from __future__ import annotations

import functools
import json
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cleanroom import ContainerError
from cleanroom_runtime._engine import Engine
from cleanroom_runtime._warden._engine_api import ask

_LOOPBACK = "127.0.0.1"
_EVERY_ADDRESS = ""
_ID = re.compile(r"[0-9a-f]{64}")
_SHORT_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Reach:
    """How to make a container's port reachable.

    Attributes:
        host: Where a published port is reached.
        publish_on: The engine's address to publish the port on; `None` where none is published.
        network: The network to attach the container to, where its own address is reached.
    """

    host: str
    publish_on: str | None
    network: str | None = None

    def ports(self, port: int) -> dict[str, tuple[str, None] | None]:
        """Return what to publish, as docker's client takes it: on a port the engine chooses."""
        if self.publish_on is None:
            return {}
        # Without an address the engine serves IPv4 and IPv6 alike.
        return {f"{port}/tcp": (self.publish_on, None) if self.publish_on else None}

    def find(self, facts: Mapping[str, Any], port: int) -> tuple[str, int] | None:
        """Return host and port, by what the engine says of the running container."""
        if self.network is not None:
            joined = _within(facts, "NetworkSettings", "Networks", self.network)
            address = joined.get("IPAddress") or joined.get("GlobalIPv6Address")
            return (str(address), port) if address else None
        published = _within(facts, "NetworkSettings", "Ports").get(f"{port}/tcp")
        return (self.host, int(published[0]["HostPort"])) if published else None


def reach_of(engine: Engine) -> Reach:
    """Choose the way to reach the containers of an engine.

    On a local engine a port is published on 127.0.0.1, and on no other address. Where this process
    is itself in a container of that engine, the new one joins its network, and nothing is
    published. A remote engine publishes on its own addresses.

    Raises:
        ContainerError: This process is in a container that has no network.
    """
    if not engine.local:
        return Reach(engine.host, _EVERY_ADDRESS)
    own = own_container(engine)
    if own is None or own["HostConfig"]["NetworkMode"] == "host":
        return Reach(_LOOPBACK, _LOOPBACK)
    networks: dict[str, Any] = own["NetworkSettings"]["Networks"]
    usable = [name for name, facts in networks.items() if name not in ("none", "host") and facts]
    if not usable:
        raise ContainerError(
            f"this process is in container {own['Id'][:12]}, from which no other can be reached",
            backend="container",
            hint="run that container on a bridge network of the engine, or with --network host",
        )
    # Docker's default network is the last choice: containers there have no names.
    network = min(usable, key=lambda name: name == "bridge")
    return Reach(_LOOPBACK, None, network)


@functools.lru_cache(maxsize=8)
def own_container(engine: Engine) -> dict[str, Any] | None:
    """Return what the engine says of the container this process is in, if it is one of its own.

    Of a container that shares the network of another one, that other is returned.
    """
    for candidate in dict.fromkeys(_own_ids()):
        facts = _inspect(engine, candidate)
        mode = facts["HostConfig"]["NetworkMode"] if facts else ""
        if mode.startswith("container:"):  # it shares the network of another
            facts = _inspect(engine, mode.partition(":")[2])
        if facts is not None:
            return facts
    return None


def _inspect(engine: Engine, container_id: str) -> dict[str, Any] | None:
    status, body = ask(engine.warden_record(), "GET", f"/containers/{container_id}/json")
    return json.loads(body) if status == 200 else None


def _own_ids() -> Iterator[str]:
    """Yield what may be the id of the container this process is in, the surest first.

    The files an engine mounts into each container lie in a folder named by its id. The cgroup is
    named by it as well, unless the container has a cgroup namespace; so is the host, unless it
    was given a name.
    """
    for line in _lines("/proc/self/mountinfo"):
        root, target = line.split()[3:5]
        if target in ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf"):
            yield from _ID.findall(root)
    for line in _lines("/proc/self/cgroup"):
        yield from _ID.findall(line)
    if _SHORT_ID.fullmatch(socket.gethostname()):
        yield socket.gethostname()


def _within(facts: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        facts = cast("Mapping[str, Any]", facts.get(key) or {})
    return facts


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
