"""The session fixtures every plugin builds on, and what a plugin's fixtures need from pytest."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import pytest

from cleanroom.hooks import hookimpl

if TYPE_CHECKING:
    from cleanroom import CleanroomEnvironment, ServiceHandle, ServicePlugin
    from cleanroom.config import DeclaredService

FAILED = pytest.StashKey[bool]()
"""On a test: whether it has failed so far."""
USES_SERVICES = pytest.StashKey[bool]()
"""On a test: whether it has leased a slice of a service."""
SERVICES = pytest.StashKey["ServiceFixtures"]()
"""On the session's configuration: its services, once they have been asked for."""
UNSHARED = pytest.StashKey[list[str]]()
"""On the session's configuration: what is known of each service that this process had for itself,
in JSON."""

_LOG_LINES = 40


class Sealable(Protocol):
    """What a fixture named for a plugin and `_template` gives: content to make slices with."""

    def seal(self) -> ServiceHandle:
        """End the writing, and return the handle by which slices with this content are leased."""
        ...


class ServiceFixtures:
    """The services of one test session, as fixtures of plugins use them.

    Args:
        config: The session's configuration.

    Raises:
        ConfigurationError: What is declared is wrong.
    """

    def __init__(self, config: pytest.Config) -> None:
        from cleanroom import CleanroomEnvironment
        from cleanroom.config import load_config
        from cleanroom_runtime._slices import Slices

        self._config = config
        self._begun: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self.declared: Mapping[str, DeclaredService] = {
            service.name: service for service in load_config(config.rootpath)
        }
        self.environment: CleanroomEnvironment = CleanroomEnvironment()
        self.slices = Slices(self.environment, self._source)
        self._request: pytest.FixtureRequest | None = None
        for service in self.declared.values():
            service.check()
            self.environment.declare(service.name, self._building(service), service.depends_on)

    @classmethod
    def of(cls, config: pytest.Config) -> ServiceFixtures:
        """Return the services of a session; made when first asked for. Raises as the class does."""
        if SERVICES not in config.stash:
            config.stash[SERVICES] = cls(config)
        return config.stash[SERVICES]

    def serve(self, request: pytest.FixtureRequest) -> None:
        """Look up what else is needed, such as a template, among the fixtures this one sees."""
        self._request = request

    def start(self, plugin_type: str) -> ServiceHandle:
        """Start the service that the fixtures of this type of plugin serve.

        That is the only declared one, or the one marked `default = true`; where none is declared,
        the plugin with its defaults, under the name of its type.

        Raises:
            ConfigurationError: Several are declared and none is the default.
            CleanroomError: It could not be started.
        """
        from cleanroom import discovery

        name = self.name_of(plugin_type)
        if name not in list(self.environment):
            make: Callable[[], ServicePlugin] = discovery.load_plugin(plugin_type)
            self.environment.register(_shared(make()))
        return self.environment[name]

    def name_of(self, plugin_type: str) -> str:
        """Return the name of the service that `start` would start. Raises as `start` does."""
        from cleanroom import ConfigurationError

        declared = [each for each in self.declared.values() if each.plugin == plugin_type]
        chosen = [service for service in declared if service.default] or declared
        if len(chosen) > 1:
            raise ConfigurationError(
                f"{len(chosen)} services of plugin {plugin_type!r} are declared "
                f"({', '.join(service.name for service in chosen)}), and none is the default",
                hint="mark one with default = true, or ask for one by name: cleanroom_env[name]",
            )
        return chosen[0].name if chosen else plugin_type

    @contextmanager
    def isolate(self, handle: ServiceHandle, item: pytest.Item) -> Iterator[ServiceHandle]:
        """Lease a clean slice of a service of this session for a test.

        Args:
            handle: The service's.
            item: The test: `request.node` of a fixture.

        Raises:
            InternalError: The service's plugin has no slices to give.
            ServiceError: The service has stopped working.
        """
        plugin = self.environment.plugin(handle.service_name)
        item.stash[USES_SERVICES] = True
        with _explained(plugin, handle), self.slices.lease(handle) as isolated:
            yield isolated

    def _source(self, handle: ServiceHandle) -> ServiceHandle:
        """What slices of a store are leased by: its template, where fixtures serve it with one."""
        service = self.declared.get(handle.service_name)
        plugin_type = service.plugin if service else handle.service_name
        if self._request is None or self.name_of(plugin_type) != handle.service_name:
            return handle
        try:
            template: Sealable = self._request.getfixturevalue(f"{plugin_type}_template")
        except pytest.FixtureLookupError:
            return handle
        return template.seal()

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
        for name, handle in self.environment.services.items():
            text = _log_tail(self.environment.plugin(name), handle, lines)
            if text:
                yield name, text

    def stop(self) -> None:
        """Stop what this process has for itself; what it shares ends with the run."""
        self._config.stash[UNSHARED] = [
            self._note(name, handle)
            for name, handle in self.environment.services.items()
            if not _is_shared(self.environment.plugin(name))
        ]
        self.environment.stop_all()

    def _note(self, name: str, handle: ServiceHandle) -> str:
        facts = {key: handle.metadata.get(key, "") for key in _FACTS}
        return json.dumps({"name": name, "seconds": self._seconds.get(name, 0.0), "facts": facts})

    def _building(self, service: DeclaredService) -> Callable[..., ServicePlugin]:
        """What depends on others runs once per worker, as what they give it may be its own."""

        def build(handles: Mapping[str, ServiceHandle]) -> ServicePlugin:
            plugin = service.build(self.slices.bind(handles))
            self._begun[service.name] = time.perf_counter()
            return plugin if service.depends_on else _shared(plugin)

        return build

    @hookimpl
    def cleanroom_service_started(self, handle: ServiceHandle) -> None:
        """Note how long a service took."""
        begun = self._begun.get(handle.service_name)
        if begun is not None:
            self._seconds.setdefault(handle.service_name, time.perf_counter() - begun)


_FACTS = ("backend", "backend_reason", "version")


def _is_shared(plugin: ServicePlugin) -> bool:
    """Whether all processes of the run share the plugin's service."""
    from cleanroom_runtime._shared import SharedPlugin

    return isinstance(plugin, SharedPlugin)


def _shared(plugin: ServicePlugin) -> ServicePlugin:
    """Share the service with the run's other workers, where its plugin is of a kind that can."""
    from cleanroom_runtime import BasePlugin, current_run
    from cleanroom_runtime._shared import share

    return share(plugin, current_run()) if isinstance(plugin, BasePlugin) else plugin


@contextmanager
def _explained(plugin: ServicePlugin, handle: ServiceHandle) -> Iterator[None]:
    """Say of an error that comes from a service that is gone what it comes from."""
    from cleanroom import CleanroomError, HealthStatus, ServiceError

    try:
        yield
    except CleanroomError:
        raise
    except Exception as exc:
        if plugin.health_check(handle) is HealthStatus.HEALTHY:
            raise
        raise ServiceError(
            f"it stopped working during the session: {type(exc).__name__}: {exc}".strip(),
            service=handle.service_name,
            backend=handle.metadata.get("backend"),
            log_tail=_log_tail(plugin, handle, _LOG_LINES) or None,
            hint="what ended it was not the run: see its log, and what the tests before did",
        ) from exc


def _log_tail(plugin: ServicePlugin, handle: ServiceHandle, lines: int) -> str:
    """The last lines of a service's log, or why they cannot be read: a report must not fail."""
    from cleanroom import SupportsLogs

    if not isinstance(plugin, SupportsLogs):
        return ""
    try:
        return plugin.logs(handle, lines)
    except Exception as exc:  # noqa: BLE001 - whatever a plugin does
        return f"(its log cannot be read: {exc!r})"


@pytest.fixture(scope="session")
def cleanroom_services(request: pytest.FixtureRequest) -> Iterator[ServiceFixtures]:
    """What fixtures of plugins are made with."""
    from cleanroom import discovery

    services = ServiceFixtures.of(request.config)
    services.serve(request)
    observers = discovery.hook_manager()
    observers.register(services)
    yield services
    try:
        services.stop()
    finally:
        observers.unregister(services)


@pytest.fixture(scope="session")
def cleanroom_env(cleanroom_services: ServiceFixtures) -> CleanroomEnvironment:
    """The declared services by name, started when asked for: `cleanroom_env["db"].url`."""
    return cleanroom_services.environment
