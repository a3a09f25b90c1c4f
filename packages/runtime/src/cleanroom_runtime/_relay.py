"""Relays: what listens on this machine's loopback alone is reached from a network of containers.

A relay is a small process of the run's, which the warden ends with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cleanroom import CleanroomError, ProcessError
from cleanroom_runtime._ready import wait_ready

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
    relay_id = f"{service_id}{_AT}{address}"
    return int(
        run.once(f"{_PREFIX}{relay_id}", lambda: _start(run, relay_id, target, address, subnet))
    )


def stop_relays(run: Run, service_id: str) -> None:
    """End the relays that lead to a service."""
    for key in run.outcomes(f"{_PREFIX}{service_id}{_AT}"):
        run.request("stop", id=key.removeprefix(_PREFIX))


def hint_of_unused(run: Run) -> str:
    """Say which relays no container has come to so far; empty where there are none."""
    idle: list[str] = []
    with contextlib.suppress(CleanroomError):  # there are none without the warden
        for key in run.outcomes(_PREFIX):
            with contextlib.suppress(OSError):  # nor of a service that has been stopped
                port, *used = _log(run, key.removeprefix(_PREFIX)).read_text().split()
                if not used:
                    idle.append(f"{key.rpartition(_AT)[2]}:{port}")
    if not idle:
        return ""
    return (
        f"no container has connected to {', '.join(idle)} so far, which leads to this machine: if "
        "it should have, see whether a firewall keeps containers from this machine"
    )


_PREFIX = "relay/"
_AT = "-at-"


def _log(run: Run, relay_id: str) -> Path:
    return run.address.directory / relay_id.partition("-")[2] / "log"


def _start(run: Run, relay_id: str, target: tuple[str, int], address: str, subnet: str) -> str:
    log = _log(run, relay_id)
    program = [sys.executable, "-I", "-S", str(_PROGRAM)]
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

    def ask(_: float) -> None:
        if not re.match(r"\d+\n", log.read_text()):
            raise ProcessError("it has not said yet where it listens")

    def check_alive() -> None:
        if not run.request("status", id=relay_id)["running"]:
            raise ProcessError(
                f"the relay that leads from {address} to {target[0]}:{target[1]} ended at once",
                log_tail=log.read_text(),
            )

    try:
        wait_ready(ask, check_alive, time.monotonic() + _START_TIMEOUT, _START_TIMEOUT)
        return log.read_text().split()[0]
    except BaseException:
        run.request("stop", id=relay_id)
        raise
