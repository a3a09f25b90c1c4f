"""What a pytest run says about its services: in its header, and in its summary."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

from cleanroom_runtime._specs import UNKNOWN_VERSION
from cleanroom_runtime.fixtures import ServiceFixtures

if TYPE_CHECKING:
    from cleanroom import ServicePlugin
    from cleanroom_runtime._run import Run


def expected(config: pytest.Config, fixture_names: Iterable[str] | None) -> list[str]:
    """Say which services the tests will use and how each will run. Starts nothing.

    Args:
        config: The session's configuration.
        fixture_names: What the tests ask for; `None` where that is not known, which means all that
            are declared.
    """
    from cleanroom import ConfigurationError

    try:
        services = ServiceFixtures.of(config)
        names = [*services.declared] if fixture_names is None else _asked(services, fixture_names)
        return [f"cleanroom: {name}: {_how(services, name)}" for name in names]
    except ConfigurationError as exc:
        return [f"cleanroom: {_first_line(exc.message)}"]


def _asked(services: ServiceFixtures, fixture_names: Iterable[str]) -> list[str]:
    """The services behind fixtures: `postgres_service` is of the plugin `postgres`."""
    from cleanroom import ConfigurationError, discovery

    asked = set(fixture_names)
    names: dict[str, None] = {}
    for plugin in discovery.installed():
        if f"{plugin.name}_service" in asked:
            try:
                names[services.name_of(plugin.name)] = None
            except ConfigurationError:
                asked.add("cleanroom_env")  # the tests will say what is wrong: show what there is
    for name in services.declared:
        if not asked.isdisjoint({"cleanroom_env", f"{name}_db", f"{name}_service"}):
            names[name] = None
    return list(names)


def _how(services: ServiceFixtures, name: str) -> str:
    """How a service will run, in a few words."""
    from cleanroom import CleanroomError, discovery
    from cleanroom_runtime import BasePlugin

    declared = services.declared.get(name)
    try:
        kind = discovery.load_plugin(declared.plugin if declared else name)
        if declared and declared.depends_on:
            return f"once per worker, after {', '.join(declared.depends_on)}"
        if not issubclass(kind, BasePlugin):
            return "once per worker: its plugin is written by hand, and no run can share it"
        plugin: ServicePlugin = declared.build({}) if declared else kind(name=name)
        if isinstance(plugin, BasePlugin):
            choice = plugin.choose()
            return f"{choice.backend} ({choice.reason})"
    except CleanroomError as exc:
        return f"cannot be started: {_first_line(exc.message)}"
    return "declared"


def summary(
    run: Run | None, unshared: Mapping[str, Sequence[str]], replaced: Sequence[str]
) -> Iterator[str]:
    """Say what was started, how, why and how long it took, what was replaced, what was kept.

    Args:
        run: The run of the session, if it has begun.
        unshared: What `ServiceFixtures` noted of services that processes had for themselves, with
            the workers that had them.
        replaced: What all processes noted of slices that were replaced.
    """
    from cleanroom import InternalError
    from cleanroom_runtime._replaced import lines

    if run is not None and not run.over():
        try:
            yield from _shared(run)
            yield from _kept(run)
        except InternalError as exc:
            yield _first_line(exc.message)
    yield from _unshared(unshared)
    yield from lines(replaced)


def _shared(run: Run) -> Iterator[str]:
    from cleanroom import CleanroomError
    from cleanroom_runtime._shared import PREFIX, read_started

    for key, outcome in run.outcomes(PREFIX).items():
        name = key.removeprefix(PREFIX)
        if "value" in outcome:
            started = read_started(outcome["value"])
            yield _line(name, started.handle.metadata, started.seconds)
        else:
            error = CleanroomError.from_dict(outcome["error"])
            yield f"{name}: failed to start: {_first_line(error.message)}"


def _unshared(unshared: Mapping[str, Sequence[str]]) -> Iterator[str]:
    facts: dict[str, Mapping[str, str]] = {}
    seconds: dict[str, float] = {}
    workers: dict[str, list[str]] = {}
    for worker, notes in unshared.items():
        for note in map(json.loads, notes):
            name = note["name"]
            facts.setdefault(name, note["facts"])
            seconds[name] = max(seconds.get(name, 0.0), note["seconds"])
            workers.setdefault(name, []).extend([worker] if worker else [])
    for name, known in facts.items():
        where = f"on each of {', '.join(sorted(workers[name]))}" if workers[name] else ""
        yield _line(name, known, seconds[name], where)


def _line(name: str, facts: Mapping[str, str], seconds: float, where: str = "") -> str:
    stated = facts.get("version", "")
    version = f"version {stated}" if stated not in ("", UNKNOWN_VERSION) else ""
    ready = f"ready in {seconds:.2f} s"
    parts = [facts.get("backend", ""), version, where, ready, facts.get("content", "")]
    reason = f" ({facts['backend_reason']})" if facts.get("backend_reason") else ""
    return f"{name}: {', '.join(filter(None, parts))}{reason}"


def _kept(run: Run) -> Iterator[str]:
    notes = run.request("kept")["notes"]
    for note in notes:
        yield f"kept: {note}"
    if notes:
        yield f"end it with: {shlex.quote(sys.executable)} -m cleanroom_runtime stop {run.id}"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
