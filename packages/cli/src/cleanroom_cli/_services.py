"""Which services `cleanroom up` starts: declared ones, and plugins with their defaults."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from cleanroom import CleanroomEnvironment, ConfigurationError, PluginError, discovery
from cleanroom._errors import nearest
from cleanroom.config import load_config

if TYPE_CHECKING:
    from cleanroom import ServiceHandle, ServicePlugin

Build = Callable[["Mapping[str, ServiceHandle]"], "ServicePlugin"]
Begun = Callable[[str], object]
"""Is told the name of a service that is about to start."""


def wanted(names: Sequence[str], config: str | None) -> dict[str, tuple[Build, Sequence[str]]]:
    """Return what makes the plugin of each service to start, and what it depends on.

    Args:
        names: Declared services, to which those are added that they depend on. The name of a plugin
            stands for the services that are declared of it; where there are none, for one with
            the plugin's defaults. All that is declared, where nothing is named.
        config: File or folder with declared services; by default the current folder and those
            above.

    Raises:
        ConfigurationError: There is no such service, or a declaration is wrong.
        PluginError: A plugin that was named is broken.
    """
    declared = {service.name: service for service in load_config(config)}
    if not names and not declared:
        raise ConfigurationError(
            f"no service is declared in {config or 'this folder or one above it'}",
            hint="add a table [tool.cleanroom.services.NAME] to pyproject.toml, or name a plugin, "
            "as in: cleanroom up postgres",
        )
    found: dict[str, tuple[Build, Sequence[str]]] = {}
    pending = list(names or declared)
    while pending:
        name = pending.pop(0)
        if name in found:
            continue
        if name in declared:
            service = declared[name]
            service.check()
            found[name] = (service.build, service.depends_on)
            pending += service.depends_on
        elif same := [each.name for each in declared.values() if each.plugin == name]:
            pending += same
        else:
            found[name] = (_with_defaults(name, declared), ())
    return found


def environment(
    services: Mapping[str, tuple[Build, Sequence[str]]], begun: Begun
) -> CleanroomEnvironment:
    """Return the environment of these services. Nothing starts yet."""

    def announced(name: str, build: Build) -> Build:
        def build_and_say(handles: Mapping[str, ServiceHandle]) -> ServicePlugin:
            begun(name)
            return build(handles)

        return build_and_say

    result = CleanroomEnvironment()
    for name, (build, depends_on) in services.items():
        result.declare(name, announced(name, build), depends_on)
    return result


def completions(incomplete: str) -> list[str]:
    """Return the services that can be named, for the shell to complete. Never raises."""
    names = {entry.name for entry in discovery.installed()}
    with contextlib.suppress(ConfigurationError):  # which is said when the command runs
        names |= {service.name for service in load_config()}
    return sorted(name for name in names if name.startswith(incomplete))


def _with_defaults(name: str, declared: Mapping[str, object]) -> Build:
    installed = [entry.name for entry in discovery.installed()]
    if name not in installed:
        hint = nearest(name, {*declared, *installed})
        raise ConfigurationError(
            "no service of that name is declared, and no plugin of that name is installed",
            service=name,
            hint=hint,
        )
    make = cast("Callable[..., ServicePlugin]", discovery.load_plugin(name))
    try:
        plugin = make(name=name)
    except (TypeError, ValueError) as exc:
        raise PluginError(
            f"it cannot be started with its defaults: {exc}",
            plugin=name,
            hint=f'declare it: [tool.cleanroom.services.NAME], plugin = "{name}"',
        ) from exc

    def build(handles: Mapping[str, ServiceHandle]) -> ServicePlugin:
        return plugin

    return build
