"""The checks of the conformance kit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

import pytest

from cleanroom import ServiceHandle, ServicePlugin
from cleanroom.testing import _capability_checks, _life_checks, _plugin_checks, _service_checks
from cleanroom.testing._service import Service, Services, services_of
from cleanroom.testing._verdict import leave_out, refuse_silent_overrides, reject


class PluginConformance:
    """Checks that a service plugin keeps what the protocol promises.

    Derive a test class from this one and fill in the fixture `plugin`. Each check says what the
    plugin did and what to mend. A check that does not apply to a plugin is named in `left_out`. One
    that applies and cannot hold is overridden and marked `pytest.mark.xfail(reason="...")`;
    overriding one without a reason is an error.

    Some checks need more than a plugin, if it does not derive from `cleanroom_runtime.BasePlugin`:
    `kill` and `failing_plugin`. Slices are checked for what is in them with `write` and `read`.
    """

    wrong_arguments: ClassVar[Mapping[str, object]] = {}
    """A wrong value for each further argument of the constructor that has one."""

    left_out: ClassVar[Mapping[str, str]] = {}
    """Checks that do not apply to the plugin, by name, and why, for instance
    `{"test_slice_is_clean": "the API is no store"}`. One that is not named here is skipped."""

    def __init_subclass__(cls) -> None:
        """Leave out what does not apply; refuse a check that is overridden without a reason."""
        super().__init_subclass__()
        leave_out(PluginConformance, cls, cls.left_out)
        refuse_silent_overrides(PluginConformance, cls, cls.left_out)

    # -- what the author fills in

    @pytest.fixture
    def plugin(self) -> ServicePlugin:
        """Fill this in: return a new plugin, set up as users would, with a long password if any.

        The service of the first check is used by others too: where it needs what is gone after one
        test, give the fixture the scope `"class"`, and make it a classmethod.
        """
        reject(
            f"{type(self).__name__} has no fixture `plugin`",
            "define a fixture of that name in it that returns a new plugin",
        )

    @pytest.fixture
    def failing_plugin(self, plugin: ServicePlugin) -> ServicePlugin:
        """A plugin whose start fails, for instance because its program does not exist.

        Needs not be filled in for what derives from `cleanroom_runtime.BasePlugin`.
        """
        return _life_checks.made_to_fail(plugin)

    def kill(self, handle: ServiceHandle) -> None:
        """End the service as a crash would, without cleaning up.

        Needs not be filled in where the plugin has a method `kill(handle)`, as those have that
        derive from `cleanroom_runtime.BasePlugin`.
        """
        raise NotImplementedError

    def write(self, handle: ServiceHandle, text: str) -> None:
        """Write a text into the service, or the slice of it, that the handle leads to."""
        raise NotImplementedError

    def read(self, handle: ServiceHandle) -> Collection[str]:
        """Return the texts that are in the service, or in the slice of it."""
        raise NotImplementedError

    # -- what needs no service

    def test_is_a_plugin(self, plugin: ServicePlugin) -> None:
        """It has the four members, a name that stays, and the API version of this core."""
        _plugin_checks.is_a_plugin(plugin)
        _capability_checks.are_not_left_out(plugin, self)

    def test_constructor_refuses_wrong_arguments(self, plugin: ServicePlugin) -> None:
        """A wrong argument is a `ValidationError` that names argument and value."""
        wrong = {**_plugin_checks.ALWAYS_WRONG, **self.wrong_arguments}
        _plugin_checks.refuse_lax_constructor(plugin, wrong)

    def test_repr_tells_plugins_apart(self, plugin: ServicePlugin) -> None:
        """The plugin's repr is one line with class and name."""
        _plugin_checks.has_a_repr(plugin)

    def test_health_of_what_never_started_is_unknown(self, plugin: ServicePlugin) -> None:
        """Of a service that it does not know, the plugin cannot tell how it is."""
        _plugin_checks.health_of_a_stranger(plugin)

    def test_stop_refuses_what_never_started(self, plugin: ServicePlugin) -> None:
        """Stopping what is no service of the plugin is an error of our tree."""
        _plugin_checks.stop_of_a_stranger(plugin)

    # -- what shares a running service, and leaves it as it is

    @pytest.fixture
    def services(self, request: pytest.FixtureRequest) -> Services:
        """What runs for the checks of the class."""
        return services_of(request)

    @pytest.fixture
    def service(self, services: Services, plugin: ServicePlugin) -> Service:
        """A running service that the checks of the class share."""
        return services.shared(plugin)

    def test_start_gives_a_live_service(self, service: Service) -> None:
        """When start returns, the service answers, is healthy, and runs where the handle says."""
        _service_checks.is_live(service)

    def test_handle_is_complete(self, service: Service) -> None:
        """The handle has every metadata key that its backend promises."""
        _service_checks.is_complete(service)

    def test_secrets_show_nowhere(self, service: Service) -> None:
        """No password shows in a repr, a log, a span, or what is printed."""
        _service_checks.keeps_secrets(service)

    def test_spans_are_one_tree(self, service: Service) -> None:
        """A start is one tree of spans, of constant names; success leaves their status unset."""
        _service_checks.has_one_tree_of_spans(service)

    def test_health_check_keeps_its_bound(self, service: Service) -> None:
        """Asking a service that takes connections and never answers ends in time."""
        _service_checks.keeps_its_bound(service)

    def test_handle_travels(self, service: Service) -> None:
        """Another object of the plugin, and another process, can use the handle."""
        _service_checks.handle_travels(service)

    def test_logs_are_the_services(self, service: Service) -> None:
        """Logs, where they are offered, have lines, and no more than were asked for."""
        _capability_checks.has_logs(service)

    def test_slice_is_clean(self, service: Service) -> None:
        """A slice, where they are offered, is live, keeps its address, and is clean each time."""
        _capability_checks.slice_is_clean(service, self)

    def test_slices_do_not_meet(self, service: Service) -> None:
        """Two slices that are held at once are two, and neither sees what is in the other."""
        _capability_checks.slices_do_not_meet(service, self)

    # -- what takes services of its own

    def test_services_started_at_once_do_not_meet(
        self, services: Services, plugin: ServicePlugin
    ) -> None:
        """Two starts from two threads give two services, which do not meet."""
        _life_checks.start_at_once(services, plugin, self)

    def test_stop_is_complete_and_may_be_repeated(
        self, services: Services, plugin: ServicePlugin
    ) -> None:
        """When stop returns nothing is left, others run on, and stopping again is fine."""
        _life_checks.stop_is_complete(services, plugin)

    def test_a_killed_service_is_unhealthy(self, services: Services, plugin: ServicePlugin) -> None:
        """Health follows a crash within its bound, and what is left can be stopped."""
        _life_checks.health_follows_a_crash(services, plugin, self)

    def test_a_failed_start_leaves_nothing(self, failing_plugin: ServicePlugin) -> None:
        """It raises an error of our tree, the cause chained, and nothing is left running."""
        _life_checks.fails_well(failing_plugin)
