"""Containers and networks that a run in a container has left behind.

The warden of such a run ends with its container and takes the journal along, so nobody is left to
remove what they started. The next run on the same engine does.
"""

from __future__ import annotations

import functools
import json
from typing import Any
from urllib.parse import quote

from cleanroom_runtime._engine import Engine
from cleanroom_runtime._reach import own_container
from cleanroom_runtime._warden._containers import OWNER_LABEL
from cleanroom_runtime._warden._engine_api import ask


@functools.lru_cache(maxsize=8)
def sweep(engine: Engine) -> None:
    """Remove the containers and networks whose owner has ended. Done once per engine in a process.

    Raises:
        OSError: The engine cannot be reached.
    """
    label = quote(json.dumps({"label": [OWNER_LABEL]}))
    containers = _ask(engine, "GET", f"/containers/json?all=1&filters={label}") or []
    networks = _ask(engine, "GET", f"/networks?filters={label}") or []
    for owner in {each["Labels"][OWNER_LABEL] for each in [*containers, *networks]}:
        facts = _ask(engine, "GET", f"/containers/{owner}/json")
        if facts is None or not facts["State"]["Running"]:
            for container in _owned(containers, owner):
                _ask(engine, "DELETE", f"/containers/{container}?force=1&v=1")
            for network in _owned(networks, owner):
                _ask(engine, "DELETE", f"/networks/{network}")


def owner_labels(engine: Engine) -> dict[str, str]:
    """Return the label that names the container this process is in, if it is in one."""
    own = own_container(engine)
    return {OWNER_LABEL: str(own["Id"])} if own else {}


def _owned(found: list[dict[str, Any]], owner: str) -> list[str]:
    return [each["Id"] for each in found if each["Labels"][OWNER_LABEL] == owner]


def _ask(engine: Engine, method: str, path: str) -> Any:
    """Return the answer; `None` of what is not there or refused."""
    status, body = ask(engine.warden_record(), method, path)
    return json.loads(body) if status == 200 else None
