"""The session fixtures every plugin builds on, and what a plugin's fixtures need from pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cleanroom import CleanroomEnvironment, ServiceHandle, ServicePlugin
    from cleanroom.config import DeclaredService

FAILED = pytest.StashKey[bool]()
"""On a test: whether it has failed so far."""
SERVICES = pytest.StashKey["ServiceFixtures"]()
"""On the session's configuration: its services, once a fixture has asked for them."""


class ServiceFixtures:
    """The services of one test session, as fixtures of plugins use them.

    Args:
        config: The session's configuration.
    """

    def __init__(self, config: pytest.Config) -> None:
        from cleanroom.config import load_config

        self._config = config
        self._declared = load_config(config.rootpath)
        self._kept: list[str] = []
        self.environment = _environment(self._declared)

    def start(self, plugin_type: str) -> ServiceHandle:
        """Start the service that the fixtures of this type of plugin serve.

        That is the only declared one, or the one marked `default = true`; where none is declared,
        the plugin with its defaults, under the name of its type.

        Raises:
            ConfigurationError: Several are declared and none is the default.
        """
        return self.environment[self.name_of(plugin_type)]

    def name_of(self, plugin_type: str) -> str:
        """Return the name of the service that `start` would start. Raises as `start` does."""
        from cleanroom import ConfigurationError, discovery

        declared = [service for service in self._declared if service.plugin == plugin_type]
        chosen = [service for service in declared if service.default] or declared
        if len(chosen) > 1:
            raise ConfigurationError(
                f"{len(declared)} services of plugin {plugin_type!r} are declared "
                f"({', '.join(service.name for service in declared)}), and "
                f"{'more than one' if chosen[0].default else 'none'} is the default",
                hint="mark one with default = true, or ask for one by name: cleanroom_env[name]",
            )
        if chosen:
            return chosen[0].name
        if plugin_type not in list(self.environment):
            make: Callable[[], ServicePlugin] = discovery.load_plugin(plugin_type)
            self.environment.register(_shared(make()))
        return plugin_type

    def isolate(self, handle: ServiceHandle) -> AbstractContextManager[ServiceHandle]:
        """Lease a clean slice of a service of this session.

        Raises:
            InternalError: Its plugin has none to give.
        """
        from cleanroom import InternalError, SupportsIsolation

        plugin = self.environment.plugin(handle.service_name)
        if not isinstance(plugin, SupportsIsolation):
            raise InternalError("its plugin cannot isolate", service=handle.service_name)
        return plugin.isolate(handle)

    def keeps(self, item: pytest.Item) -> bool:
        """Whether to keep what this test used: it failed, and `--cleanroom-keep` was given."""
        return bool(self._config.getoption("cleanroom_keep")) and item.stash.get(FAILED, False)

    def note_kept(self, item: pytest.Item, handle: ServiceHandle) -> None:
        """Keep the run after its end, and say in its report where to find what was kept."""
        from cleanroom_runtime import run_of

        run = run_of(handle.id)
        run.request("keep", note=f"{item.nodeid}: {handle.url}")

    def log_tails(self, lines: int) -> Iterator[tuple[str, str]]:
        """The last lines of each running service's log, with the service's name."""
        from cleanroom import SupportsLogs

        for name, handle in self.environment.services.items():
            plugin = self.environment.plugin(name)
            text = plugin.logs(handle, lines) if isinstance(plugin, SupportsLogs) else ""
            if text:
                yield name, text


def _environment(declared: list[DeclaredService]) -> CleanroomEnvironment:
    from cleanroom import CleanroomEnvironment

    environment = CleanroomEnvironment()
    for service in declared:
        service.check()
        environment.declare(service.name, _build(service), service.depends_on)
    return environment


def _build(service: DeclaredService) -> Callable[..., ServicePlugin]:
    """What depends on others runs once per worker, bound to the worker's own slices of them."""
    if service.depends_on:
        return service.build
    return lambda handles: _shared(service.build(handles))


def _shared(plugin: ServicePlugin) -> ServicePlugin:
    """Share the service with the run's other workers, where its plugin is of a kind that can."""
    from cleanroom_runtime import BasePlugin, current_run
    from cleanroom_runtime._shared import SharedPlugin

    return SharedPlugin(plugin, current_run()) if isinstance(plugin, BasePlugin) else plugin


@pytest.fixture(scope="session")
def cleanroom_services(pytestconfig: pytest.Config) -> Iterator[ServiceFixtures]:
    """What fixtures of plugins are made with."""
    services = pytestconfig.stash[SERVICES] = ServiceFixtures(pytestconfig)
    yield services
    services.environment.stop_all()


@pytest.fixture(scope="session")
def cleanroom_env(cleanroom_services: ServiceFixtures) -> CleanroomEnvironment:
    """The declared services by name, started when asked for: `cleanroom_env["db"].url`."""
    return cleanroom_services.environment
