"""On which backends a kind of plugin can run on this machine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from cleanroom import ServicePlugin
    from cleanroom_runtime import BasePlugin, LocalServer
    from cleanroom_runtime._engine import Engine, NoEngine


@functools.cache
def engine() -> Engine | NoEngine:
    """Return the container engine, or what was tried in vain; asked once."""
    from cleanroom_runtime._engine import find_engine

    return find_engine()


def backends_here(kind: type[ServicePlugin]) -> tuple[str, ...]:
    """Return the backends on which services of this plugin can be started here.

    A plugin whose server is the user's own command can always run as a process, for all we know.
    One written by hand runs in a way of its own, and says nothing about it.
    """
    from cleanroom_runtime import BasePlugin
    from cleanroom_runtime._engine import Engine

    if not issubclass(kind, BasePlugin):
        return ("its own",)
    found: list[str] = []
    servers = local_servers(kind)
    if servers or (servers is None and says(kind, "process")):
        found.append("process")
    if says(kind, "container") and isinstance(engine(), Engine):
        found.append("container")
    if says(kind, "attach"):
        found.append("external")
    return tuple(found)


def local_servers(kind: type[BasePlugin]) -> list[LocalServer] | None:
    """Return the servers on this machine; `None` where that depends on how the plugin is set up."""
    plugin = with_defaults(kind)
    return None if plugin is None or kind.same_service else list(plugin.local_servers())


def with_defaults(kind: type[BasePlugin]) -> BasePlugin | None:
    """Return the plugin as it is without a word of the user's; `None` where it wants some."""
    try:
        return cast("Callable[..., BasePlugin]", kind)(name="any")
    except (TypeError, ValueError):
        return None


def says(kind: type[BasePlugin], method: str) -> bool:
    """Whether a plugin has its own answer to what the base class leaves open."""
    from cleanroom_runtime import BasePlugin

    return getattr(kind, method) is not getattr(BasePlugin, method)
