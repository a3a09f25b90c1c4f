"""Checks that start services of their own, because these do not survive it."""

from __future__ import annotations

import copy
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NoReturn

import pytest

from cleanroom import CleanroomError, HealthStatus, ServiceHandle, ServicePlugin, SupportsLogs
from cleanroom.testing._capability_checks import do_not_meet
from cleanroom.testing._elsewhere import another_object
from cleanroom.testing._left import Traces, below, traces_of
from cleanroom.testing._plugin_checks import refuse_lost_cause
from cleanroom.testing._recording import Recording, recording, refuse_secrets, secrets_of
from cleanroom.testing._service import (
    Services,
    ask,
    ask_until,
    clear_away,
    is_external,
    start,
    stop,
)
from cleanroom.testing._service_checks import refuse_strays
from cleanroom.testing._verdict import reject, require

if TYPE_CHECKING:
    from cleanroom.testing._conformance import PluginConformance

_STOP = "cleanroom.service.stop"


def stop_is_complete(services: Services, plugin: ServicePlugin) -> None:
    """When stop returns nothing is left of the service, and stopping again is fine."""
    other = services.shared(plugin)
    with services.taken(plugin) as handle:
        traces, secrets = traces_of(handle), secrets_of(plugin, handle)
        with recording() as record:
            stop(another_object(plugin), handle, "by another object of the plugin")
        _nothing_is_left(traces, "stop() returned")
        stop(plugin, handle, "of a service that is stopped already")
        status = ask(plugin, handle, "a service that is stopped")
        require(
            status is not HealthStatus.HEALTHY or is_external(handle),
            "health_check of a service that is stopped says HEALTHY",
            "ask the service itself",
        )
        status = ask(other.plugin, other.handle, "a service beside one that was stopped")
        require(
            status is HealthStatus.HEALTHY,
            f"stopping one service left another one {status.name}",
            "stop the service that the handle is of, and no other",
        )
        refuse_secrets(secrets, record.texts())
        refuse_strays(record.spans or (), _STOP)


def _nothing_is_left(traces: Traces, when: str) -> None:
    left = traces.left()
    require(
        not left,
        f"when {when} there was still {' and '.join(left)}",
        "end and await all of the service before returning: its process, those that this has "
        "started, its container",
    )


def health_follows_a_crash(
    services: Services, plugin: ServicePlugin, suite: PluginConformance
) -> None:
    """Health follows a crash within its bound, and what is left can be stopped."""
    with services.taken(plugin) as handle:
        if is_external(handle):
            plugin.stop(handle)
            pytest.skip("somebody else runs the service, so nobody here can kill it")
        traces = traces_of(handle)
        _kill(plugin, handle, suite)
        status = ask_until(HealthStatus.UNHEALTHY, plugin, handle, "a service that was killed")
        require(
            status is HealthStatus.UNHEALTHY,
            f"health_check of a service that was killed says {status.name}",
            "ask the service itself each time, and say UNHEALTHY where it does not answer",
        )
        if isinstance(plugin, SupportsLogs):
            _has_last_words(plugin, handle)
        stop(plugin, handle, "of a service that was killed")
        _nothing_is_left(traces, "stop() of a killed service returned")


def _kill(plugin: ServicePlugin, handle: ServiceHandle, suite: PluginConformance) -> None:
    from cleanroom.testing._conformance import PluginConformance

    if type(suite).kill is not PluginConformance.kill:
        suite.kill(handle)
        return
    kill = getattr(plugin, "kill", None)
    if not callable(kill):
        reject(
            "nobody has said how to kill the service",
            f"give {type(suite).__name__} a method kill(self, handle) that ends the service as a "
            "crash would",
        )
    kill(handle)


def _has_last_words(plugin: SupportsLogs, handle: ServiceHandle) -> None:
    try:
        plugin.logs(handle)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is to be told
        reject(
            f"logs() of a service that was killed raised {type(error).__name__}: {error}",
            "return what there is: its last lines are what people want to see then",
        )


def start_at_once(services: Services, plugin: ServicePlugin, suite: PluginConformance) -> None:
    """Two starts from two threads give two services, which do not meet."""
    one, other = _started_at_once(plugin)
    try:
        require(
            one.id != other.id,
            "two services that were started at once have the same id",
            "give each start an id that no other has",
        )
        own = not is_external(one)
        for key in ("url", "pid", "container_id") if own else ():
            value = one.metadata.get(key)
            require(
                value is None or value != other.metadata.get(key),
                f"two services that were started at once have the same {key}",
                "give each its own: a free port, a name that nobody else has",
            )
        for each in (one, other):
            status = ask(plugin, each, "one of two services")
            require(
                status is HealthStatus.HEALTHY,
                f"of two services that were started at once one is {status.name}",
                "keep what belongs to one service apart from all others, also in threads",
            )
        if own:
            do_not_meet(suite, one, other, "service")
    except BaseException:
        clear_away(plugin, one, other)
        raise
    services.leave(plugin, one, other)


def _started_at_once(plugin: ServicePlugin) -> tuple[ServiceHandle, ServiceHandle]:
    together = threading.Barrier(2)

    def run() -> ServiceHandle:
        together.wait()
        return start(plugin)

    with ThreadPoolExecutor(2) as pool:
        attempts = [pool.submit(run) for _ in range(2)]
    errors = [attempt.exception() for attempt in attempts]
    handles = [attempt.result() for attempt in attempts if attempt.exception() is None]
    for error in filter(None, errors):
        clear_away(plugin, *handles)
        reject(
            f"one of two starts at once raised {type(error).__name__}: {error}",
            "choose ports, names and folders that nobody else has, and keep nothing of a start "
            "in the object",
        )
    return handles[0], handles[1]


class _Refusal:
    """What a plugin calls when its service is ready: remembers the service, and fails."""

    def __init__(self) -> None:
        self.seen: list[tuple[Traces, ServiceHandle]] = []

    def __call__(self, handle: ServiceHandle) -> NoReturn:
        self.seen.append((traces_of(handle), handle))
        raise OSError(f"no use of {handle.url}, says the conformance kit")


def made_to_fail(plugin: ServicePlugin) -> ServicePlugin:
    """Return a copy that fails once the service is ready, if the plugin has `prepare`."""
    if not callable(getattr(plugin, "prepare", None)):
        pytest.skip("to see how a start fails, the class needs the fixture `failing_plugin`")
    failing = copy.copy(plugin)
    vars(failing)["prepare"] = _Refusal()
    return failing


def fails_well(plugin: ServicePlugin) -> None:
    """It raises an error of our tree, the cause chained, and nothing is left running."""
    refusal = getattr(plugin, "prepare", None)
    if not isinstance(refusal, _Refusal):
        _failure(plugin)  # what is started once only, such as a helper, is there from now on
    before = set(below(os.getpid()))
    error, record = _failure(plugin)
    require(
        isinstance(error, CleanroomError),
        f"a start failed with {type(error).__name__}, which is no CleanroomError: {error}",
        "raise cleanroom.ServiceError, ProcessError, ContainerError or StartTimeoutError from it",
    )
    require(
        plugin.name in str(error),
        f"the error of a failed start does not say which service it was: {error}",
        "give the error service=self.name",
    )
    refuse_lost_cause(error)
    secrets = secrets_of(plugin)
    if isinstance(refusal, _Refusal):
        require(
            refusal.seen,
            f"a start that was to fail at its end failed before the service was ready: {error}",
            "mend the start first",
        )
        traces, handle = refusal.seen[0]
        secrets |= secrets_of(plugin, handle)
        _nothing_is_left(traces, "start() had failed")
    else:
        _nothing_is_left(Traces(tuple(set(below(os.getpid())) - before)), "start() had failed")
    notes = "\n".join(getattr(error, "__notes__", ()))
    refuse_secrets(
        secrets, {"the error of a failed start": f"{error} {error!r} {notes}", **record.texts()}
    )
    _is_recorded_once(record)


def _failure(plugin: ServicePlugin) -> tuple[Exception, Recording]:
    with recording() as record:
        try:
            handle = start(plugin)
        except Exception as error:  # noqa: BLE001 - the check looks at what it is
            return error, record
    clear_away(plugin, handle)
    reject(
        "the plugin of the fixture `failing_plugin` starts",
        "return one whose start fails, for instance because its program does not exist",
    )


def _is_recorded_once(record: Recording) -> None:
    events = [event for span in record.spans or () for event in span.events]
    errors = [str(dict(event.attributes or {})) for event in events if event.name == "exception"]
    require(
        record.spans is None or (errors and len(errors) == len(set(errors))),
        f"a failed start has recorded its error {len(errors)} times in spans",
        "open spans with cleanroom.spans, which record an error once, where it happened",
    )
