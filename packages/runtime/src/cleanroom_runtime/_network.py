"""The run's own network on an engine, in which its containers reach each other.

It is made when the first container is to reach another service. It is a bridge: on a local engine
its gateway is an address of this machine, by which its containers reach what listens there.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cleanroom import ContainerError
from cleanroom_runtime._asking import ask_engine, understood
from cleanroom_runtime._warden._containers import RUN_LABEL, SERVICE_LABEL

if TYPE_CHECKING:
    from cleanroom_runtime._engine import Engine
    from cleanroom_runtime._run import Run


@dataclass(frozen=True, slots=True)
class Network:
    """A network of an engine.

    Attributes:
        id: Its id there.
        name: Its name there.
        gateway: The engine's address in it; empty where the engine does not tell.
        subnet: The addresses of its containers, as `172.18.0.0/16`.
    """

    id: str
    name: str
    gateway: str
    subnet: str


def network_of(run: Run, engine: Engine) -> Network:
    """Return the run's network on an engine, which is made if need be.

    Raises:
        ContainerError: The engine did not make it.
    """
    return _read(run.once(_key(engine), lambda: _make(run, engine)))


def known_network(run: Run, engine: Engine) -> Network | None:
    """Return the run's network on an engine, if there is one."""
    outcome = run.outcomes(_key(engine)).get(_key(engine), {})
    return _read(outcome["value"]) if "value" in outcome else None


def join(network: Network, engine: Engine, container_id: str, alias: str) -> None:
    """Connect a container, running or not, under a name that the others reach it by.

    One that is connected already stays as it is.

    Raises:
        ContainerError: The engine did not do it.
    """
    path = f"/networks/{network.id}/connect"
    body = {"Container": container_id, "EndpointConfig": {"Aliases": [alias]}}
    status, answer = ask_engine(engine, "POST", path, body=body)
    if status >= 300 and network.name not in networks_in(inspect(engine, container_id)):
        understood(engine, status, answer)


def inspect(engine: Engine, container_id: str) -> dict[str, Any]:
    """Return what the engine says of a container.

    Raises:
        ContainerError: The engine did not answer, or there is no such container.
    """
    status, answer = ask_engine(engine, "GET", f"/containers/{container_id}/json")
    facts: dict[str, Any] = understood(engine, status, answer)
    return facts


def networks_in(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the networks a container is connected to, by name, from what the engine says of it."""
    found: dict[str, Any] = facts.get("NetworkSettings", {}).get("Networks") or {}
    return found


def _key(engine: Engine) -> str:
    return f"network/{engine.url}"


def _read(text: str) -> Network:
    return Network(**json.loads(text))


def _make(run: Run, engine: Engine) -> str:
    from cleanroom_runtime._stale import owner_labels

    network_id = run.new_service_id()
    # Containers are on the engine's default network too, from which their ports are published.
    # The engine publishes from the network whose name comes first: that of this one comes later.
    name = f"cleanroom-{network_id}"
    labels = {RUN_LABEL: run.id, SERVICE_LABEL: network_id, **owner_labels(engine)}
    run.request("register", id=network_id, engine=engine.warden_record())
    wanted = {"Name": name, "Driver": "bridge", "CheckDuplicate": True, "Labels": labels}
    status, answer = ask_engine(engine, "POST", "/networks/create", body=wanted)
    if status >= 300:
        run.request("stop", id=network_id)  # else the warden looks for it when the run ends
        raise _refused(engine, status, answer)
    made: str = understood(engine, status, answer)["Id"]
    return json.dumps(asdict(_described(engine, made, name)))


def _described(engine: Engine, network_id: str, name: str) -> Network:
    facts: Any = understood(engine, *ask_engine(engine, "GET", f"/networks/{network_id}"))
    for pool in facts["IPAM"]["Config"] or []:
        if ":" not in pool.get("Subnet", ":"):
            return Network(network_id, name, pool.get("Gateway", ""), pool["Subnet"])
    return Network(network_id, name, "", "")


def _refused(engine: Engine, status: int, answer: bytes) -> ContainerError:
    from cleanroom_runtime._warden._engine_api import reason_in

    return ContainerError(
        "the engine made no network for the run's containers: "
        f"{reason_in(answer)[:500]} (status {status})",
        backend="container",
        hint="docker network ls shows the networks there are, docker network prune removes those "
        f"that nobody uses; the engine is {engine.url} (from {engine.source})",
    )
