"""How a container sees other services: at which address, and what must be set up for that.

Tests, and services that are processes, see a service at the address in its handle. A container
sees another one in the run's network, and what listens on this machine's loopback by a relay.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cleanroom import ContainerError, ServiceHandle
from cleanroom_runtime._asking import ask_engine, engine_error, understood
from cleanroom_runtime._engine import in_words
from cleanroom_runtime._network import inspect, join, network_of, networks_in
from cleanroom_runtime._reach import own_container, reach_of
from cleanroom_runtime._relay import relayed

if TYPE_CHECKING:
    from cleanroom_runtime._engine import Engine
    from cleanroom_runtime._run import Run

Address = tuple[str, Mapping[int, int]]
"""The host by which containers reach a service, and for ports of its handle those there."""

_HOST_OF_VIRTUAL_MACHINE = "host.docker.internal"


def seen_from_container(handle: ServiceHandle, engine: Engine, run: Run) -> ServiceHandle:
    """Return a service's handle as a container sees it that the run starts on an engine.

    Args:
        handle: The service's, as this process sees it.
        engine: Where the container is to run.
        run: The run that the container will belong to.

    Raises:
        ContainerError: The service cannot be reached from there.
        ProcessError: The relay to it could not be started.
    """
    metadata = handle.metadata
    if "host" not in metadata or "port" not in metadata:
        return handle
    beside = metadata.get("backend") == "container" and metadata.get("engine") == engine.url
    try:
        if beside and reach_of(engine).network is None:
            host, ports = _in_network(handle, engine, run)
        elif _is_this_machine(handle.host):
            host, ports = _by_relay(handle, engine, run)
        else:
            return handle
    except OSError as exc:
        message = f"the engine does not answer: {in_words(exc)}"
        raise engine_error(engine, message, None) from exc
    return ServiceHandle(handle.id, handle.service_name, _moved(metadata, host, ports))


def _in_network(handle: ServiceHandle, engine: Engine, run: Run) -> Address:
    """Where a container of the same engine is: in the run's network, which it joins if need be.

    It goes by its service's id there. A name would be that of each worker's own service.
    """
    network = network_of(run, engine)
    facts = inspect(engine, handle.require("container_id"))
    if network.name not in networks_in(facts):
        join(network, engine, handle.require("container_id"), handle.id)
    published: dict[str, Any] = facts["NetworkSettings"]["Ports"] or {}
    ports = {
        int(binding["HostPort"]): int(port.removesuffix("/tcp"))
        for port, bindings in published.items()
        for binding in bindings or []
        if port.endswith("/tcp")
    }
    if handle.port not in ports:
        what = f"the container of {handle.service_name!r} does not run any more"
        raise ContainerError(what, backend="container")
    return handle.id, ports


def _by_relay(handle: ServiceHandle, engine: Engine, run: Run) -> Address:
    """Where a service on this machine's loopback is reached from the engine's containers."""
    if not engine.local:
        raise _unreachable(handle, f"and the container runs on the engine at {engine.host}")
    if not handle.host or handle.host.startswith("/"):
        raise _unreachable(handle, "by a unix socket")
    network = reach_of(engine).network
    if network is None:
        joined = network_of(run, engine)
        here, subnet = joined.gateway, joined.subnet
    else:  # the tests are in a container themselves, and the new one joins their network
        own = networks_in(own_container(engine) or {})[network]
        here, subnet = str(own["IPAddress"]), f"{own['IPAddress']}/{own['IPPrefixLen']}"
    if not _is_own_address(here):
        facts: Any = understood(engine, *ask_engine(engine, "GET", "/info"))
        if sys.platform != "linux" or facts.get("OperatingSystem") == "Docker Desktop":
            return _HOST_OF_VIRTUAL_MACHINE, {handle.port: handle.port}
        # Podman, which says that, has the address once a container runs in the network.
        if not here or facts.get("Rootless") is not False:
            raise _unreachable(handle, "and the engine's networks are none of this machine's")
    port = relayed(run, handle.id, (handle.host, handle.port), here, subnet)
    return here, {handle.port: port}


def _is_this_machine(host: str) -> bool:
    """Whether a host is this machine itself by a name or address that no other machine can use."""
    if host in ("", "localhost") or host.startswith("/"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _is_own_address(address: str) -> bool:
    """Whether one can listen at this address, and at no other."""
    if not address:
        return False
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _moved(metadata: Mapping[str, str], host: str, ports: Mapping[int, int]) -> dict[str, str]:
    """Return the metadata of a service that is found elsewhere, with that address in every URL."""
    old = metadata["host"]
    spelled, there = (f"[{each}]" if ":" in each else each for each in (old, host))
    address = re.compile(
        rf"(?<=//|.@){re.escape(spelled)}(?::(\d+))?(?=[/?#]|$)|"
        rf"(?<![\w.:-]){re.escape(spelled)}:(\d+)\b",
        re.IGNORECASE,
    )

    def move(match: re.Match[str]) -> str:
        port = int(match[1] or match[2] or metadata["port"])
        return f"{there}:{ports[port]}" if port in ports else match[0]

    moved: dict[str, str] = {}
    for key, value in metadata.items():
        if key == "host" or key.startswith("host_"):  # of a further port
            moved[key] = host if value == old else value
        elif (key == "port" or key.startswith("port_")) and value.isdecimal():
            moved[key] = str(ports.get(int(value), value))
        else:
            moved[key] = address.sub(move, value)
    return moved


def _unreachable(handle: ServiceHandle, why: str) -> ContainerError:
    name, backend = handle.service_name, handle.metadata.get("backend", "unknown")
    return ContainerError(
        f"a container cannot reach service {name!r} (backend {backend}): it is reached on this "
        f"machine only, {why}",
        backend="container",
        hint=f"run {name!r} in a container as well (backend='container'), or run both as processes",
    )
