"""What it cost that slices of stores were replaced, and why: told by plugins, shown in reports."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from cleanroom import CleanroomEnvironment, ServiceHandle

_MOST_REASONS = 4


@dataclass(frozen=True, slots=True)
class Replaced:
    """How often slices were replaced for one reason, and how many seconds that took."""

    count: int
    seconds: float

    def __add__(self, other: Replaced) -> Replaced:
        """Return both together."""
        return Replaced(self.count + other.count, self.seconds + other.seconds)


@runtime_checkable
class TellsReplaced(Protocol):
    """A plugin that makes a slice clean in place where it can, and replaces it where it cannot."""

    def replaced(self, handle: ServiceHandle) -> Mapping[str, Replaced]:
        """Return why slices were replaced that this process had leased, and what that cost.

        Args:
            handle: The service's.

        Returns:
            For each reason, in a few words.
        """
        ...


def notes(environment: CleanroomEnvironment) -> Iterator[str]:
    """What this process's services tell, in JSON, to be given to `lines`."""
    from cleanroom_runtime._shared import SharedPlugin

    for name, handle in environment.services.items():
        plugin: object = environment.plugin(name)
        if isinstance(plugin, SharedPlugin):
            plugin = plugin.plugin
        if isinstance(plugin, TellsReplaced):
            for reason, cost in plugin.replaced(handle).items():
                yield json.dumps([name, reason, cost.count, cost.seconds])


def lines(told: Iterable[str]) -> Iterator[str]:
    """Return a line for each service whose slices were replaced.

    Args:
        told: The notes of all processes of the run.
    """
    services: dict[str, dict[str, Replaced]] = {}
    for name, reason, count, seconds in map(json.loads, told):
        reasons = services.setdefault(name, {})
        reasons[reason] = reasons.get(reason, Replaced(0, 0.0)) + Replaced(count, seconds)
    for name, reasons in services.items():
        total = sum(reasons.values(), Replaced(0, 0.0))
        often = sorted(reasons, key=lambda reason: -reasons[reason].count)
        said = [f"{reason} ({reasons[reason].count})" for reason in often[:_MOST_REASONS]]
        if len(often) > _MOST_REASONS:
            said.append(f"and {len(often) - _MOST_REASONS} more reasons")
        times = "once" if total.count == 1 else f"{total.count} times"
        yield f"{name}: replaced {times} between tests, in {total.seconds:.2f} s: {', '.join(said)}"
