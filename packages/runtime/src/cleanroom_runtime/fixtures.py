"""The session fixtures every plugin builds on, and what a plugin's fixtures need from pytest."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import pytest

from cleanroom.hooks import hookimpl
from cleanroom_runtime._making import Scope as Scope
from cleanroom_runtime._making import Sealable as Sealable
from cleanroom_runtime._making import Service as Service
from cleanroom_runtime._making import chosen as chosen
from cleanroom_runtime._making import name_of as name_of
from cleanroom_runtime._making import sealed as sealed
from cleanroom_runtime._making import several as several

if TYPE_CHECKING:
    from cleanroom import CleanroomEnvironment, ServiceHandle, ServicePlugin
    from cleanroom.config import DeclaredService

EXPECTS = "cleanroom_expects"
"""Attribute of a fixture that is named for a service and `_template`, in a `conftest.py`: what it
will ask of the service, as its plugin's `expecting` understands it. The plugin may prepare it."""

Node: TypeAlias = pytest.Item | pytest.Collector
"""A test, or what has tests: a class, a module, the session."""

FAILED: pytest.StashKey[bool] = pytest.StashKey()
"""On a test, and on its class, module and so on: whether it, or one of its tests, has failed."""
USES_SERVICES: pytest.StashKey[bool] = pytest.StashKey()
"""On a test, or what has tests: whether a slice of a service was leased for it."""
SERVICES: pytest.StashKey[ServiceFixtures] = pytest.StashKey()
"""On the session's configuration: its services, once they have been asked for."""
UNSHARED: pytest.StashKey[list[str]] = pytest.StashKey()
"""On the session's configuration: what is known of each service that this process had for itself,
in JSON."""
REPLACED: pytest.StashKey[list[str]] = pytest.StashKey()
"""On the session's configuration: which slices this process had replaced, see `_replaced.notes`."""


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
        self.slices = Slices(self.environment, self.source)
        self._defaults: dict[str, ServicePlugin] = {}
        self._undeclared: dict[str, ServicePlugin] = {}
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

    def start(self, plugin_type: str, service: Service | None = None) -> ServiceHandle:
        """Start a service that fixtures of this type of plugin serve.

        Args:
            plugin_type: The name under which the plugin is found.
            service: The name of a declared service, or a plugin for one that is not declared. By
                default the only declared one of the type, or the one marked `default = true`;
                where none is declared, the plugin with its defaults, under the name of its type.

        Raises:
            ConfigurationError: There is no such service of this type, its name is taken by another
                one, or several are declared and none is the default.
            CleanroomError: It could not be started.
        """
        from cleanroom import ConfigurationError, discovery

        if service is None:
            name = self.name_of(plugin_type)
            if name not in self.declared:
                if name not in self._defaults:
                    make: Callable[[], ServicePlugin] = discovery.load_plugin(plugin_type)
                    self._defaults[name] = make()
                self._register(self._defaults[name])
        elif isinstance(service, str):
            name = service
            if name in self.declared and self.declared[name].plugin != plugin_type:
                raise ConfigurationError(
                    f"it is of plugin {self.declared[name].plugin!r}, not {plugin_type!r}",
                    service=name,
                    hint="use the fixtures of its own plugin",
                )
        else:
            name = service.name
            self._register(service)
        return self.environment[name]

    def _register(self, plugin: ServicePlugin) -> None:
        """Add the service of a plugin that is not declared, unless it is there already."""
        from cleanroom import ConfigurationError
        from cleanroom_runtime._shared import share_with_run

        name = plugin.name
        if name in self.declared or self._undeclared.setdefault(name, plugin) is not plugin:
            raise ConfigurationError(
                "another service has this name", service=name, hint="give the plugin another name"
            )
        if name not in list(self.environment):
            self.environment.register(share_with_run(self._expecting(plugin)))

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
    def isolate(self, handle: ServiceHandle, node: Node) -> Iterator[ServiceHandle]:
        """Lease a clean slice of a service of this session.

        All that one test leases by the same handle is the same slice, which is also the one that
        services of this worker were given. What is leased for longer is a slice beside it.

        Args:
            handle: The service's, or that of a template of it.
            node: What it is for, a test or a module: `request.node` of a fixture.

        Raises:
            InternalError: The service's plugin has no slices to give.
            ServiceError: The service has stopped working.
        """
        from cleanroom_runtime._explain import explained

        plugin = self.environment.plugin(handle.service_name)
        node.stash[USES_SERVICES] = True
        for_test = isinstance(node, pytest.Item)
        lease = self.slices.lease if for_test else self.slices.lease_beside
        with explained(plugin, handle), lease(handle) as isolated:
            yield isolated

    def source(
        self, handle: ServiceHandle, request: pytest.FixtureRequest | None = None
    ) -> ServiceHandle:
        """Return the handle by which slices of a store are leased: its template's, if it has one.

        That is what the fixture gives that is named for the service and `_template`; for the
        service which `start` starts by default, the one named for its type.

        Args:
            handle: The service's.
            request: Of the fixture that leases; by default of `cleanroom_services`.

        Raises:
            ConfigurationError: The fixture gives something else.
        """
        request = request or self._request
        if request is None:
            return handle
        name = f"{self._known_as(handle.service_name)}_template"
        try:
            template: object = request.getfixturevalue(name)
        except pytest.FixtureLookupError as exc:
            if exc.argname != name:
                raise
            return handle
        return sealed(name, template)

    def _known_as(self, service: str) -> str:
        """What the fixtures of a service are named for."""
        from cleanroom import ConfigurationError

        declared = self.declared.get(service)
        try:
            if declared is not None and self.name_of(declared.plugin) == service:
                return declared.plugin
        except ConfigurationError:
            pass  # There is no default.
        return service

    def keeps(self, node: Node) -> bool:
        """Whether to keep what was used: a test failed, and `--cleanroom-keep` was given.

        Args:
            node: The test, or what had tests: `request.node` of a fixture.
        """
        return bool(self._config.getoption("cleanroom_keep")) and node.stash.get(FAILED, False)

    def note_kept(self, node: Node, handle: ServiceHandle) -> None:
        """Keep the run after its end, and say in its report where to find what was kept."""
        from cleanroom_runtime import run_of

        run = run_of(handle.id)
        run.request("keep", note=f"{node.nodeid or 'the session'}: {handle.url}")

    def log_tails(self, lines: int) -> Iterator[tuple[str, str]]:
        """The last lines of each running service's log, with the service's name."""
        from cleanroom_runtime._explain import log_tail

        for name, handle in self.environment.services.items():
            text = log_tail(self.environment.plugin(name), handle, lines)
            if text:
                yield name, text

    def stop(self) -> None:
        """Stop what this process has for itself; what it shares ends with the run."""
        from cleanroom_runtime._replaced import notes
        from cleanroom_runtime._shared import SharedPlugin

        self._config.stash[REPLACED] = list(notes(self.environment))
        self._config.stash[UNSHARED] = [
            self._note(name, handle)
            for name, handle in self.environment.services.items()
            if not isinstance(self.environment.plugin(name), SharedPlugin)
        ]
        self.environment.stop_all()

    def _note(self, name: str, handle: ServiceHandle) -> str:
        facts = {key: handle.metadata.get(key, "") for key in _FACTS}
        return json.dumps({"name": name, "seconds": self._seconds.get(name, 0.0), "facts": facts})

    def _building(self, service: DeclaredService) -> Callable[..., ServicePlugin]:
        """What depends on others runs once per worker, as what they give it may be its own."""
        from cleanroom_runtime._shared import share_with_run

        def build(handles: Mapping[str, ServiceHandle]) -> ServicePlugin:
            plugin = self._expecting(service.build(self.slices.bind(handles)))
            self._begun[service.name] = time.perf_counter()
            return plugin if service.depends_on else share_with_run(plugin)

        return build

    def _expecting(self, plugin: ServicePlugin) -> ServicePlugin:
        """Tell a plugin beforehand what fixtures will ask of its service, see `EXPECTS`."""
        from cleanroom_runtime import BasePlugin

        name = f"{self._known_as(plugin.name)}_template"
        fixtures = [getattr(each, name, None) for each in self._config.pluginmanager.get_plugins()]
        expected = [getattr(each, EXPECTS) for each in fixtures if hasattr(each, EXPECTS)]
        return plugin.expecting(expected) if isinstance(plugin, BasePlugin) else plugin

    @hookimpl
    def cleanroom_service_started(self, handle: ServiceHandle) -> None:
        """Note how long a service took."""
        begun = self._begun.get(handle.service_name)
        if begun is not None:
            self._seconds.setdefault(handle.service_name, time.perf_counter() - begun)


_FACTS = ("backend", "backend_reason", "version", "content")


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
