"""Containers of services: launched, asked, removed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cleanroom import ContainerError, spans
from cleanroom_runtime._asking import ask_engine, understood
from cleanroom_runtime._container_spec import ContainerSpec
from cleanroom_runtime._engine import Engine
from cleanroom_runtime._specs import Endpoint
from cleanroom_runtime._warden._containers import RUN_LABEL, SERVICE_LABEL

if TYPE_CHECKING:
    from cleanroom_runtime._docker import ServiceContainer
    from cleanroom_runtime._reach import Reach
    from cleanroom_runtime._run import Run

_PORT_TRIES = 3
_REMOVAL_TIMEOUT = 30.0
_PUBLISH_TIMEOUT = 5.0
_LOG_LINES = 30

_Addresses = dict[int, tuple[str, int]]
"""Ports inside the container, and where each is reached."""


@dataclass(frozen=True, slots=True)
class ContainerState:
    """How a container is.

    Attributes:
        running: Whether its main process exists; it does while the container is paused.
        status: The engine's word: `created`, `running`, `paused`, `exited`, `dead`..., or `gone`.
        exit_code: How its main process ended, once it has.
        oom_killed: Whether it was killed because it went over its memory limit.
    """

    running: bool
    status: str
    exit_code: int | None = None
    oom_killed: bool = False


def launch(
    run: Run,
    service_id: str,
    service_name: str,
    spec: ContainerSpec,
    engine: Engine,
) -> Endpoint:
    """Start a container that the run owns. It runs then, which does not say that it is ready.

    The engine must have the image, see `_images.provide`.

    Args:
        run: The run that ends it, however this process ends.
        service_id: The service's id; a new one for each launch.
        service_name: The service's name, for errors.
        spec: What to run.
        engine: Where.

    Raises:
        ContainerError: It could not be started, or ended at once; nothing is left of it.
    """
    registered = run.begin("register", id=service_id, engine=engine.warden_record())
    try:
        from cleanroom_runtime._docker import ServiceContainer
        from cleanroom_runtime._docker_errors import translated
        from cleanroom_runtime._network import join, known_network
        from cleanroom_runtime._reach import reach_of
        from cleanroom_runtime._scratch import first_file
        from cleanroom_runtime._stale import owner_labels, sweep
        from cleanroom_runtime._tunnel import within_reach
    finally:
        registered()
    container: ServiceContainer | None = None
    try:
        with (
            spans.container_start_span(spec.image) as span,
            translated(service_name, spec, engine),
        ):
            sweep(engine)
            reach = reach_of(engine)
            labels = {RUN_LABEL: run.id, SERVICE_LABEL: service_id, **owner_labels(engine)}
            door = run.address.directory / f"{service_id.rpartition('-')[2]}.engine"
            with within_reach(engine, door) as url:
                name = f"cleanroom-{service_id}"
                data = first_file(spec, engine)
                container = ServiceContainer(engine, url, spec, name, labels, reach, data)
                network = known_network(run, engine)
                if network is not None:
                    container.on_created = lambda made: join(network, engine, made, service_id)
                with contextlib.closing(container):
                    addresses = _start(container, reach, spec.all_ports, engine)
                    container_id = container.container_id
            span.set("container.id", container_id)
    except BaseException:
        if container is None or container.settled:
            run.request("stop", id=service_id)  # else the warden looks for it when the run ends
        raise
    facts = {"container_id": container_id, "image": spec.image, "engine": engine.url}
    for inside in spec.further_ports:
        host, port = addresses[inside]
        facts |= {f"host_{inside}": host, f"port_{inside}": str(port)}
    return Endpoint(*addresses[spec.port], facts)


def state(
    container_id: str, engine: Engine, *, service_name: str | None = None, timeout: float = 2.0
) -> ContainerState:
    """Return how a container is; one that is not there has the status `gone`.

    Args:
        container_id: Its id or name.
        engine: Where it is.
        service_name: The service's name, for errors.
        timeout: Seconds to wait for the engine's answer.

    Raises:
        ContainerError: The engine did not answer.
    """
    path = f"/containers/{container_id}/json"
    status, body = ask_engine(engine, "GET", path, service_name, timeout=timeout)
    if status == 404:
        return ContainerState(running=False, status="gone")
    return _state_in(understood(engine, status, body, service_name))


def log_tail(
    container_id: str, engine: Engine, lines: int | None, *, service_name: str | None = None
) -> str:
    """Return the last lines the container wrote, to both streams; nothing of one that is gone.

    All lines, where no number of them is given.

    Raises:
        ContainerError: The engine did not answer.
    """
    path = f"/containers/{container_id}/logs?stdout=1&stderr=1&tail={lines or 'all'}"
    status, body = ask_engine(engine, "GET", path, service_name)
    text = b"".join(part for _, part in frames(body)) if status == 200 else b""
    return text.decode(errors="replace")


def frames(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Take what a container wrote apart, each part with the number of its stream.

    A part begins with that number, three zeros, and its length in four bytes. What a terminal
    shows has no parts.
    """
    while len(stream) >= 8 and stream[0] <= 2 and stream[1:4] == bytes(3):
        end = 8 + int.from_bytes(stream[4:8])
        yield stream[0], stream[8:end]
        stream = stream[end:]
    if stream:
        yield 1, stream


def kill(container_id: str, engine: Engine, *, service_name: str | None = None) -> None:
    """End the container's main process with SIGKILL; one that has ended or is gone is fine.

    Raises:
        ContainerError: The engine did not answer, or refused.
    """
    path = f"/containers/{container_id}/kill?signal=KILL"
    status, body = ask_engine(engine, "POST", path, service_name)
    if status >= 300 and state(container_id, engine, service_name=service_name).running:
        understood(engine, status, body, service_name)


def remove(container_id: str, engine: Engine, *, service_name: str | None = None) -> None:
    """Kill and remove a container and its anonymous volumes; return once it is gone.

    Removing twice is fine, also at the same time.

    Args:
        container_id: Its id or name.
        engine: Where it is.
        service_name: The service's name, for errors.

    Raises:
        ContainerError: The engine did not answer, or did not remove it in time.
    """
    deadline = time.monotonic() + _REMOVAL_TIMEOUT
    path = f"/containers/{container_id}?force=1&v=1"
    while True:
        status, body = ask_engine(engine, "DELETE", path, service_name, timeout=_REMOVAL_TIMEOUT)
        if status == 404:
            return
        if time.monotonic() > deadline:
            understood(engine, status, body, service_name)
        if status >= 300:  # being removed by somebody else, or not to be removed yet
            time.sleep(0.02)


def _start(
    container: ServiceContainer, reach: Reach, ports: Sequence[int], engine: Engine
) -> _Addresses:
    """Start it, again where another program took a port, and return where the ports are."""
    from cleanroom_runtime._docker_errors import is_port_conflict

    for left in reversed(range(_PORT_TRIES)):
        try:
            container.start()
            return _addresses(container, reach, ports, engine)
        except BaseException as exc:
            try:
                remove(container.name, engine)
            except ContainerError:
                container.settled = False
            if not (left and is_port_conflict(exc)):
                raise
    raise AssertionError


def _addresses(
    container: ServiceContainer, reach: Reach, ports: Sequence[int], engine: Engine
) -> _Addresses:
    deadline = time.monotonic() + _PUBLISH_TIMEOUT
    while True:
        facts = container.inspect()
        now, found = _state_in(facts), {port: reach.find(facts, port) for port in ports}
        known = {port: address for port, address in found.items() if address is not None}
        if now.running and len(known) == len(found):
            return known
        if not now.running or time.monotonic() > deadline:
            killed = ", killed because it went over its memory limit" if now.oom_killed else ""
            image = facts["Config"]["Image"]
            raise ContainerError(
                f"the engine gave port {next(port for port in ports if port not in known)} "
                f"no address within {_PUBLISH_TIMEOUT:g} s"
                if now.running
                else f"the container ended at once with exit code {now.exit_code}{killed}",
                log_tail=log_tail(container.container_id, engine, _LOG_LINES),
                hint=None if now.running else f"it was started from image {image}",
            )
        time.sleep(0.02)


def _state_in(facts: Mapping[str, Any]) -> ContainerState:
    found: Mapping[str, Any] = facts["State"]
    running, status = bool(found["Running"]), str(found["Status"])
    return ContainerState(
        running=running,
        status=status,
        exit_code=None if running or status == "created" else int(found["ExitCode"]),
        oom_killed=bool(found.get("OOMKilled")),
    )
