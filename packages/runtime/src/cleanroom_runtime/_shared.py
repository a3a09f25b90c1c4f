"""Services that all workers of a run share: started by one, used by all, ended with the run."""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager
from typing import NamedTuple

from cleanroom import HealthStatus, ServiceHandle, ServicePlugin, SupportsIsolation
from cleanroom_runtime import _ahead, _start
from cleanroom_runtime._hiding import remember_secrets
from cleanroom_runtime._plugin import BasePlugin, Lease
from cleanroom_runtime._run import Run, current_run

PREFIX = "service/"


class Started(NamedTuple):
    """A service as the run's report knows it."""

    handle: ServiceHandle
    seconds: float


class SharedPlugin:
    """A plugin whose service is started once for all processes of a run.

    Stopping leaves the service to the others: it ends with the run.
    """

    def __init__(self, plugin: BasePlugin, run: Run) -> None:
        self.plugin = plugin
        self._run = run

    @property
    def name(self) -> str:
        """The service's name."""
        return self.plugin.name

    def start(self) -> ServiceHandle:
        """Start the service, or wait for the worker that does. Raises what that one raised."""
        _start.look_ahead(self.plugin)
        started = read_started(self._run.once(f"{PREFIX}{self.name}", self._start))
        remember_secrets(started.handle.metadata)
        return started.handle

    def _start(self) -> str:
        begun = time.perf_counter()
        with _ahead.shared(self.plugin):
            handle = self.plugin.start()
        seconds = time.perf_counter() - begun
        return json.dumps({"handle": handle.to_json(), "seconds": seconds})

    def stop(self, handle: ServiceHandle) -> None:
        """Leave the service to the run; close what this process holds open to it."""
        self.plugin.disconnect(handle)

    def health_check(self, handle: ServiceHandle) -> HealthStatus:
        """Ask the service how it is."""
        return self.plugin.health_check(handle)

    def logs(self, handle: ServiceHandle, tail: int = 100) -> str:
        """Return the last lines the service wrote."""
        return self.plugin.logs(handle, tail)


class SharedStore(SharedPlugin):
    """The same for a service that can give slices of itself."""

    def __init__(self, plugin: BasePlugin, run: Run, isolate: Lease) -> None:
        super().__init__(plugin, run)
        self._isolate = isolate

    def isolate(self, handle: ServiceHandle) -> AbstractContextManager[ServiceHandle]:
        """Lease a clean slice of the service."""
        return self._isolate(handle)


def share(plugin: BasePlugin, run: Run) -> SharedPlugin:
    """Share a plugin's service with all processes of a run."""
    if isinstance(plugin, SupportsIsolation):
        return SharedStore(plugin, run, plugin.isolate)
    return SharedPlugin(plugin, run)


def share_with_run(plugin: ServicePlugin) -> ServicePlugin:
    """Share a service with the other workers of the run, if its plugin is of a kind that can."""
    return share(plugin, current_run()) if isinstance(plugin, BasePlugin) else plugin


def read_started(text: str) -> Started:
    """Return what a worker left for the others when it had started a service."""
    data = json.loads(text)
    return Started(ServiceHandle.from_json(data["handle"]), float(data["seconds"]))
