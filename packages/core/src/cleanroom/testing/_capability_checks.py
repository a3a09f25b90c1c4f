"""Checks of what a service can do besides: logs, and clean slices for tests."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from cleanroom import HealthStatus, ServiceHandle, ServicePlugin, SupportsIsolation, SupportsLogs
from cleanroom.testing._service import Service, ask, is_external
from cleanroom.testing._verdict import reject, require

if TYPE_CHECKING:
    from cleanroom.testing._conformance import PluginConformance

_PATIENCE = 2.0
_BASE_CLASS = "cleanroom_runtime._plugin"
"""Seconds within which what a service has written can be read."""


class _FailedTestError(Exception):
    """What a test raises that fails while it has a slice."""


def has_logs(service: Service) -> None:
    """Logs, where they are offered, have lines, and no more than were asked for."""
    plugin, handle = service.plugin, service.handle
    if not isinstance(plugin, SupportsLogs) or is_external(handle):
        pytest.skip("the plugin does not offer logs, or somebody else runs the service")
    deadline = time.monotonic() + _PATIENCE
    while not (text := plugin.logs(handle)).strip() and time.monotonic() < deadline:
        time.sleep(0.02)
    if not text and type(plugin).logs.__module__ == _BASE_CLASS:
        pytest.skip("the service has written nothing, of which the runtime can be sure")
    require(
        text.strip(),
        "logs(handle) is empty, though the service was started and asked",
        "return the last lines that the service wrote to stdout and stderr",
    )
    for tail in (1, 2):
        lines = plugin.logs(handle, tail).splitlines()
        require(
            len(lines) <= tail,
            f"logs(handle, {tail}) has {len(lines)} lines",
            "return the last `tail` lines, and no more",
        )


def are_not_left_out(plugin: ServicePlugin, suite: PluginConformance) -> None:
    """Slices, where they are offered, are checked."""
    missing = sorted({"test_slice_is_clean", "test_slices_do_not_meet"} & suite.left_out.keys())
    who = f"{type(suite).__name__} leaves out {' and '.join(missing)}"
    require(
        not missing or not isinstance(plugin, SupportsIsolation),
        f"{who}, though the plugin offers slices",
        "take it out of left_out",
    )


def slice_is_clean(service: Service, suite: PluginConformance) -> None:
    """A slice, where they are offered, is live, keeps its address, and is clean each time."""
    plugin, handle = _isolating(service), service.handle
    with plugin.isolate(handle) as first:
        _is_like(handle, first)
        _answers(service.plugin, first)
        if _can_write(suite):
            _write(suite, first, "left by a test")
    try:
        with plugin.isolate(handle) as second:
            _has_the_address_of(first, second)
            _answers(service.plugin, second)
            if _can_write(suite):
                left = suite.read(second)
                require(
                    not left,
                    f"a new slice holds what an earlier test has written: {', '.join(left)}",
                    "clean a slice before it is leased",
                )
            raise _FailedTestError
    except _FailedTestError:
        pass
    else:
        reject(
            "isolate() hides the error of the test that has the slice",
            "give the slice back in a `finally` around the `yield`, and catch nothing",
        )
    with plugin.isolate(handle) as third:
        _has_the_address_of(first, third)


def slices_do_not_meet(service: Service, suite: PluginConformance) -> None:
    """Two slices that are held at once are two, and neither sees what is in the other."""
    plugin, handle = _isolating(service), service.handle
    with plugin.isolate(handle) as one, plugin.isolate(handle) as other:
        require(
            one.url != other.url,
            "two slices that are held at once have the same URL",
            "lease a slice to one at a time",
        )
        if not _can_write(suite):
            pytest.skip("to see whether slices meet, the class needs the methods write and read")
        do_not_meet(suite, one, other, "slice")


def do_not_meet(
    suite: PluginConformance, one: ServiceHandle, other: ServiceHandle, what: str
) -> None:
    """Fail where what is written into one is seen in the other, if the author says how to."""
    if not _can_write(suite):
        return
    _write(suite, one, "written into one")
    _write(suite, other, "written into the other")
    require(
        "written into one" not in suite.read(other)
        and "written into the other" not in suite.read(one),
        f"what is written into one {what} is seen in another",
        f"give each {what} data of its own",
    )


def _isolating(service: Service) -> SupportsIsolation:
    if not isinstance(service.plugin, SupportsIsolation):
        pytest.skip("the plugin does not offer slices")
    return service.plugin


def _is_like(handle: ServiceHandle, leased: object) -> None:
    mend = "give the slice the service's handle, with another address in its metadata"
    if not isinstance(leased, ServiceHandle):
        reject(f"isolate() gives {type(leased).__name__}, not a ServiceHandle", mend)
    missing = sorted(handle.metadata.keys() - leased.metadata.keys())
    require(not missing, f"the handle of a slice lacks {', '.join(missing)}", mend)
    require(
        (leased.id, leased.service_name) == (handle.id, handle.service_name),
        "the handle of a slice has another id or name than that of its service",
        mend,
    )


def _has_the_address_of(first: ServiceHandle, later: ServiceHandle) -> None:
    require(
        later.url == first.url,
        "the URL of a slice changes from one lease to the next",
        "give this process the same slice again, cleaned, since services were given its URL; "
        "and take it back in a `finally` around the `yield`, since tests fail",
    )


def _answers(plugin: ServicePlugin, leased: ServiceHandle) -> None:
    status = ask(plugin, leased, "a slice")
    require(
        status is HealthStatus.HEALTHY,
        f"health_check of a slice says {status.name}",
        "let the metadata of a slice lead to where it can be used",
    )


def _can_write(suite: PluginConformance) -> bool:
    from cleanroom.testing._conformance import PluginConformance

    kind = type(suite)
    return kind.write is not PluginConformance.write and kind.read is not PluginConformance.read


def _write(suite: PluginConformance, handle: ServiceHandle, text: str) -> None:
    suite.write(handle, text)
    require(
        text in suite.read(handle),
        f"{type(suite).__name__}.read() does not return what its write() wrote",
        "let both use the address in the handle they are given",
    )
