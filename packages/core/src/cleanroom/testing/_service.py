"""Services that checks start, ask and stop."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from typing import cast

import pytest

from cleanroom import HealthStatus, ServiceHandle, ServicePlugin, spans
from cleanroom.testing._recording import Recording, recording
from cleanroom.testing._verdict import reject, require

DEFAULT_BOUND = 2.0
"""Seconds within which a health check answers, unless the plugin has a `health_timeout`."""
SLACK = 1.0
"""Seconds by which a busy machine may be late."""


@dataclass(frozen=True)
class Service:
    """A service that was started and asked once, and what could be seen of it then.

    Attributes:
        plugin: The plugin.
        handle: What its start returned.
        health: What a health check right after the start said.
        record: What start and health check let others see.
    """

    plugin: ServicePlugin
    handle: ServiceHandle
    health: HealthStatus
    record: Recording


def is_external(handle: ServiceHandle) -> bool:
    """Whether somebody else runs the service, so that it can neither be killed nor stopped."""
    return handle.metadata.get("backend") == "external"


def start(plugin: ServicePlugin) -> ServiceHandle:
    """Start a service as an environment does, with a span over it."""
    with spans.plugin_start_span(plugin.name):
        handle = cast(object, plugin.start())
    if not isinstance(handle, ServiceHandle):
        reject(
            f"start() returned {type(handle).__name__}", "return a cleanroom.ServiceHandle from it"
        )
    facts: Mapping[str, object] = handle.metadata  # whatever the annotation says
    others = [key for key, value in facts.items() if not isinstance(value, str)]
    if others:
        clear_away(plugin, handle)
        reject(
            f"the handle's metadata is no text at {', '.join(others)}",
            "put text into the metadata, and nothing else",
        )
    return handle


def stop(plugin: ServicePlugin, handle: ServiceHandle, when: str) -> None:
    """Stop a service, as an environment does; an error is a finding."""
    try:
        with spans.plugin_stop_span(plugin.name):
            plugin.stop(handle)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is to be told
        reject(
            f"stop() {when} raised {type(error).__name__}: {error}",
            "return from stop as soon as the service is gone, also where it was gone before",
        )


def ask(plugin: ServicePlugin, handle: ServiceHandle, what: str) -> HealthStatus:
    """Return the health of a service; an error, or an answer out of time, is a finding.

    Args:
        plugin: Whom to ask.
        handle: Of what.
        what: What the handle is of, in words.
    """
    bound = float(getattr(plugin, "health_timeout", DEFAULT_BOUND))
    answers = list[object]()

    def run() -> None:
        try:
            with spans.health_check_span(plugin.name):
                answers.append(plugin.health_check(handle))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is to be told
            answers.append(error)

    thread = threading.Thread(target=copy_context().run, args=(run,), daemon=True)
    thread.start()
    thread.join(bound + SLACK)
    require(
        answers,
        f"health_check of {what} did not answer within its bound of {bound:g} s",
        "give every question to the service a timeout, shorter than that",
    )
    answer = answers[0]
    if isinstance(answer, HealthStatus):
        return answer
    if isinstance(answer, Exception):
        reject(
            f"health_check of {what} raised {type(answer).__name__}: {answer}",
            "return HealthStatus.UNHEALTHY where the service is down or answers wrongly, and "
            "HealthStatus.UNKNOWN where the plugin cannot tell",
        )
    reject(f"health_check of {what} returned {answer!r}", "return a cleanroom.HealthStatus")


def ask_until(
    wanted: HealthStatus, plugin: ServicePlugin, handle: ServiceHandle, what: str
) -> HealthStatus:
    """Return the health of a service: `wanted` once it is, else what it is when time is up."""
    deadline = time.monotonic() + float(getattr(plugin, "health_timeout", DEFAULT_BOUND))
    while (status := ask(plugin, handle, what)) is not wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return status


def clear_away(plugin: ServicePlugin, *handles: ServiceHandle) -> None:
    """Stop services whose check has failed, which matters more than that this may fail too."""
    for handle in handles:
        with contextlib.suppress(Exception):
            plugin.stop(handle)


class Services:
    """The services of one suite, for one set of parameters: few, because starting takes time.

    Args:
        suite: The class. What it still has is stopped after its last check.
    """

    def __init__(self, suite: pytest.Class) -> None:
        self._shared: Service | None = None
        self._has_tried = False
        self._spare = list[ServiceHandle]()
        self._suite = suite

    def shared(self, plugin: ServicePlugin) -> Service:
        """Return the service that checks leave as it is; started when it is first asked for."""
        if self._shared is None and not self._has_tried:
            self._has_tried = True
            self._shared = self._start_to_share(plugin)
        if self._shared is None:
            pytest.fail("the service could not be started; the first such check says why", False)
        return self._shared

    def _start_to_share(self, plugin: ServicePlugin) -> Service:
        with recording() as record:
            handle = start(plugin)
            self._suite.addfinalizer(lambda: plugin.stop(handle))
            health = ask(plugin, handle, "a service that was just started")
        return Service(plugin, handle, health, record)

    @contextlib.contextmanager
    def taken(self, plugin: ServicePlugin) -> Iterator[ServiceHandle]:
        """Give a service to a check that ends it: one that another check is done with, or new."""
        handle = self._spare.pop() if self._spare else start(plugin)
        try:
            yield handle
        except BaseException:
            clear_away(plugin, handle)
            raise

    def leave(self, plugin: ServicePlugin, *handles: ServiceHandle) -> None:
        """Leave running services to checks that need one."""
        self._spare += handles
        self._suite.addfinalizer(lambda: self._end_spare(plugin))

    def _end_spare(self, plugin: ServicePlugin) -> None:
        while self._spare:
            plugin.stop(self._spare.pop())


_services = pytest.StashKey[dict[str, Services]]()


def services_of(request: pytest.FixtureRequest) -> Services:
    """Return the services of the suite that a check belongs to, for the check's parameters."""
    suite: pytest.Class = request.node.getparent(pytest.Class)
    key: str = getattr(getattr(request.node, "callspec", None), "id", "")
    return suite.stash.setdefault(_services, {}).setdefault(key, Services(suite))
