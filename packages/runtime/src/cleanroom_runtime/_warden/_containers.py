"""Removing the containers and networks that a run has on an engine."""

from __future__ import annotations

import contextlib
import json
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._journal import Record

RUN_LABEL = "org.cleanroom.run"
"""Label that every container and network of a run carries; its value is the run's id."""
SERVICE_LABEL = "org.cleanroom.service"
"""Label of every container; its value is the id of its service."""
OWNER_LABEL = "org.cleanroom.within"
"""Label of those started from within another container; its value is that one's id."""

_ANSWER_TIMEOUT = 20.0
_REMOVAL_TIMEOUT = 15.0


class Removal:
    """Removes what a run has on one engine.

    Args:
        engine: Where it is, see `_engine_api`.
        run_id: The run's id.
        awaited: Services that may come to be there; those that had a container are taken out.
    """

    def __init__(self, engine: Record, run_id: str, awaited: set[str]) -> None:
        self._engine = engine
        self._awaited = awaited
        self._label = json.dumps({"label": [f"{RUN_LABEL}={run_id}"]})
        self._begun: list[Callable[[], Any]] = []

    def begin(self) -> bool:
        """Have the engine begin to remove the containers there are now, all at once.

        Returns:
            Whether that is all there is to do, and nothing that ends with a container of the
            engine itself: then what is left to do is the engine's.

        Raises:
            OSError: It does not answer, or refuses to.
        """
        found = self._list("/containers/json?all=1&")
        for container in found:
            path = f"/containers/{container['Id']}?force=1&v=1"
            self._begun.append(_begin(self._engine, "DELETE", path))
        owned = any(OWNER_LABEL in (container.get("Labels") or {}) for container in found)
        return not owned and not self._list("/networks?")

    def finish(self) -> None:
        """Return when the containers are gone, with their volumes, and the networks as well.

        Raises:
            OSError: The engine does not answer, refuses, or takes too long.
        """
        deadline = time.monotonic() + _REMOVAL_TIMEOUT
        self._collect()
        while found := self._list("/containers/json?all=1&"):
            for container in found:
                path = f"/containers/{container['Id']}?force=1&v=1"
                self._begun.append(_begin(self._engine, "DELETE", path))
            self._collect()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(found)} containers are still there")
            time.sleep(0.02)
        while found := self._list("/networks?"):
            for network in found:
                trouble = self._remove_network(f"/networks/{network['Id']}")
                if time.monotonic() > deadline:
                    raise trouble or TimeoutError(f"{len(found)} networks are still there")
            time.sleep(0.02)

    def _list(self, path: str) -> list[Record]:
        from urllib.parse import quote

        found: list[Record] = _ask(self._engine, "GET", f"{path}filters={quote(self._label)}")
        for each in found:
            self._awaited.discard((each.get("Labels") or {}).get(SERVICE_LABEL, ""))
        return found

    def _collect(self) -> None:
        """Wait for the answers to what was begun; all of them, though one is a refusal."""
        with contextlib.ExitStack() as answers:
            while self._begun:
                answers.callback(self._begun.pop())

    def _remove_network(self, path: str) -> OSError | None:
        """Remove a network, to which somebody may have connected containers of others."""
        try:
            facts = _ask(self._engine, "GET", path) or {}
            for container in facts.get("Containers") or {}:
                with contextlib.suppress(OSError):  # it may have left by itself
                    leaver = {"Container": container, "Force": True}
                    _ask(self._engine, "POST", f"{path}/disconnect", leaver)
            _ask(self._engine, "DELETE", path)
        except OSError as exc:
            return exc
        return None


def _ask(engine: Record, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    return _begin(engine, method, path, body)()


def _begin(
    engine: Record, method: str, path: str, body: dict[str, Any] | None = None
) -> Callable[[], Any]:
    """Send a request and return what waits for the answer. Both may raise OSError."""
    # Not at the top: HTTP takes as long to import as all the rest of the warden.
    from ._engine_api import begin, reason_in

    wait = begin(engine, method, path, body=body, timeout=_ANSWER_TIMEOUT)

    def finish() -> Any:
        status, answer = wait()
        if status in (404, 409):
            return []  # gone already, or being removed by somebody else
        if status >= 400:
            raise OSError(f"engine answered {status} to {method} {path}: {reason_in(answer)}")
        return json.loads(answer) if answer else []

    return finish
