"""Relays: what listens on this machine's loopback alone is reached from a network of containers.

A relay is a small process of the run's, which the warden ends with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cleanroom import CleanroomError, ProcessError
from cleanroom_runtime._ready import wait_ready
from cleanroom_runtime._run import WardenRefusalError

if TYPE_CHECKING:
    from cleanroom_runtime._run import Run

_PROGRAM = Path(__file__).with_name("_warden") / "_relay.py"
_START_TIMEOUT = 20.0


def relayed(run: Run, service_id: str, target: tuple[str, int], address: str, subnet: str) -> int:
    """Return the port of `address` that leads to a service, from a relay that is started once.

    Args:
        run: The run that ends the relay.
        service_id: The service's id.
        target: Host and port of the service.
        address: Where the relay listens: this machine's address in the network.
        subnet: Who may connect, as `172.18.0.0/16`.

    Raises:
        ProcessError: The relay could not be started.
    """
    key = f"{_PREFIX}{service_id}/{address}"
    outcome = run.once(key, lambda: _start(run, target, address, subnet))
    return int(json.loads(outcome)["port"])


def stop_relays(run: Run, service_id: str) -> None:
    """End the relays that lead to a service."""
    for relay in _relays(run, f"{_PREFIX}{service_id}/"):
        run.request("stop", id=relay["id"])


def hint_of_unused(run: Run) -> str:
    """Say which relays no container has come to so far; empty where there are none."""
    idle: list[str] = []
    with contextlib.suppress(CleanroomError):  # there are none without the warden
        for relay in _relays(run, _PREFIX):
            with contextlib.suppress(OSError):  # nor of a service that has been stopped
                if len(_log(run, relay["id"]).read_text().splitlines()) == 1:
                    idle.append(f"{relay['address']}:{relay['port']}")
    if not idle:
        return ""
    return (
        f"no container has connected to {', '.join(idle)} so far, which leads to this machine: if "
        "it should have, see whether a firewall keeps containers from this machine"
    )


_PREFIX = "relay/"


def _relays(run: Run, prefix: str) -> list[dict[str, str]]:
    outcomes = run.outcomes(prefix).values()
    return [json.loads(outcome["value"]) for outcome in outcomes if "value" in outcome]


def _log(run: Run, relay_id: str) -> Path:
    return run.address.directory / relay_id.rpartition("-")[2] / "log"


def _start(run: Run, target: tuple[str, int], address: str, subnet: str) -> str:
    relay_id = run.new_service_id()
    log = _log(run, relay_id)
    program = [sys.executable, "-I", "-S", str(_PROGRAM)]
    named = f"the relay that leads from {address} to {target[0]}:{target[1]}"
    try:
        run.request(
            "spawn",
            id=relay_id,
            argv=[*program, address, subnet, target[0], str(target[1])],
            env=dict(os.environ),  # a Python may need some of it to start
            cwd="/",
            log=str(log),
            directories=[str(log.parent)],
            stop_signal="SIGTERM",
            stop_timeout=1.0,
        )
    except WardenRefusalError as exc:
        raise ProcessError(f"{named} could not be started: {exc.message}") from exc

    def ask(_: float) -> None:
        if not re.match(r"\d+\n", log.read_text()):
            raise ProcessError("it has not said yet where it listens")

    def check_alive() -> None:
        if not run.request("status", id=relay_id)["running"]:
            raise ProcessError(f"{named} ended at once", log_tail=log.read_text())

    try:
        wait_ready(ask, check_alive, time.monotonic() + _START_TIMEOUT, _START_TIMEOUT)
        port = log.read_text().split()[0]
    except BaseException:
        run.request("stop", id=relay_id)
        raise
    return json.dumps({"id": relay_id, "address": address, "port": port})
