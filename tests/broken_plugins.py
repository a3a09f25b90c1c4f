"""Plugins that each break one promise of the protocol, and a suite of the kit for each.

Not collected by itself: the tests of the core run it, and look for what the kit says.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from opentelemetry import trace

from cleanroom import HealthStatus, ProcessError, ServiceError, ServiceHandle, spans
from cleanroom.testing import PluginConformance
from tests.reference_plugin import BoxPlugin, end_all

BROKEN: dict[str, tuple[str, str]] = {}
"""For each suite, the check that must fail, and a part of what it must say."""


class Suite(PluginConformance):
    kind: ClassVar[type[BoxPlugin]] = BoxPlugin

    @pytest.fixture(scope="session", autouse=True)
    @classmethod
    def _tidy(cls) -> Iterator[None]:
        yield
        end_all()

    @pytest.fixture
    def plugin(self) -> BoxPlugin:
        return self.kind("box", "correct-horse")

    @pytest.fixture
    def failing_plugin(self) -> BoxPlugin:
        return self.kind("box", "correct-horse", executable="/there/is/no/python")

    def write(self, handle: ServiceHandle, text: str) -> None:
        BoxPlugin().ask(handle, "add", text)

    def read(self, handle: ServiceHandle) -> Collection[str]:
        return BoxPlugin().ask(handle, "read")


def broken(check: str, says: str) -> Any:
    """Make a suite for a plugin, which must fail a check and say why."""

    def note(kind: type[BoxPlugin]) -> type[BoxPlugin]:
        name = f"Test{kind.__name__}"
        BROKEN[name] = (f"test_{check}", says)
        globals()[name] = type(name, (Suite,), {"kind": kind})
        return kind

    return note


# ------------------------------------------------------------------ without a service


@broken("is_a_plugin", "lacks health_check")
class NeverAsked(BoxPlugin):
    @property
    def health_check(self) -> Any:
        raise AttributeError("health_check")


@broken("is_a_plugin", "and then 'box-")
class Renamed(BoxPlugin):
    times = 0

    @property
    def name(self) -> str:
        self.times += 1
        return f"box-{self.times}"


@broken("is_a_plugin", "written for plugin API 7")
class OfAnotherTime(BoxPlugin):
    API_VERSION = 7


@broken("constructor_refuses_wrong_arguments", "TakesAnyName(name='') is accepted")
class TakesAnyName(BoxPlugin):
    def __init__(self, name: str = "box", *rest: Any, **options: Any) -> None:
        super().__init__(name or "box", *rest, **options)


@broken("constructor_refuses_wrong_arguments", "raises ValueError: health_timeout")
class RefusesInItsOwnWay(BoxPlugin):
    def __init__(self, name: str, password: str, health_timeout: float = 1, **rest: Any) -> None:
        if health_timeout < 0:
            raise ValueError("health_timeout is wrong")
        super().__init__(name, password, health_timeout=health_timeout, **rest)


@broken("repr_tells_plugins_apart", "does not tell plugins apart")
class Anonymous(BoxPlugin):
    def __repr__(self) -> str:
        return object.__repr__(self)


@broken("health_of_what_never_started_is_unknown", "never started says UNHEALTHY")
class KnowsEverything(BoxPlugin):
    def health_check(self, handle: ServiceHandle) -> HealthStatus:
        status = super().health_check(handle)
        return HealthStatus.UNHEALTHY if status is HealthStatus.UNKNOWN else status


@broken("stop_refuses_what_never_started", "went well")
class StopsAnything(BoxPlugin):
    def stop(self, handle: ServiceHandle) -> None:
        if "folder" in handle.metadata:
            super().stop(handle)


@broken("stop_refuses_what_never_started", "KeyError, which is no CleanroomError")
class StopsInItsOwnWay(BoxPlugin):
    def stop(self, handle: ServiceHandle) -> None:
        Path(handle.metadata["folder"]).touch()


# ---------------------------------------------------------------------------- a start


@broken("start_gives_a_live_service", "right after start() the service is UNHEALTHY")
class Stillborn(BoxPlugin):
    def start(self) -> ServiceHandle:
        handle = super().start()
        self.kill(handle)
        return handle


@broken("start_gives_a_live_service", "there is no process 4194305")
class WrongPid(BoxPlugin):
    def facts(self, folder: Path, pid: int, port: int) -> dict[str, Any]:
        return {**super().facts(folder, pid, port), "pid": "4194305"}


@broken("start_gives_a_live_service", "start() returned dict")
class ReturnsADict(BoxPlugin):
    def start(self) -> Any:
        return {"url": "box://"}


@broken("handle_is_complete", "lacks version, executable")
class Terse(BoxPlugin):
    def facts(self, folder: Path, pid: int, port: int) -> dict[str, Any]:
        facts = super().facts(folder, pid, port)
        del facts["version"], facts["executable"]
        return facts


@broken("handle_is_complete", "no text at port")
class CountsInMetadata(BoxPlugin):
    def facts(self, folder: Path, pid: int, port: int) -> dict[str, Any]:
        return {**super().facts(folder, pid, port), "port": port}


@broken("handle_is_complete", "backend is 'somehow'")
class RunsSomehow(BoxPlugin):
    def facts(self, folder: Path, pid: int, port: int) -> dict[str, Any]:
        return {**super().facts(folder, pid, port), "backend": "somehow"}


@broken("handle_travels", "another object of the plugin says UNKNOWN")
class Remembers(BoxPlugin):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.mine: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "mine": set()}

    def start(self) -> ServiceHandle:
        handle = super().start()
        self.mine.add(handle.id)
        return handle

    def health_check(self, handle: ServiceHandle) -> HealthStatus:
        return super().health_check(handle) if handle.id in self.mine else HealthStatus.UNKNOWN


@broken("handle_travels", "the plugin in another process says UNKNOWN")
class RemembersInItsClass(BoxPlugin):
    mine: ClassVar[set[str]] = set()

    def start(self) -> ServiceHandle:
        handle = super().start()
        self.mine.add(handle.id)
        return handle

    def health_check(self, handle: ServiceHandle) -> HealthStatus:
        return super().health_check(handle) if handle.id in self.mine else HealthStatus.UNKNOWN


@broken("handle_travels", "cannot be pickled")
class Locked(BoxPlugin):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lock = threading.Lock()


# ----------------------------------------------------------------- secrets and spans


@broken("secrets_show_nowhere", "a password shows in repr(plugin)")
class ShowsItself(BoxPlugin):
    def __repr__(self) -> str:
        return f"{type(self).__name__}({vars(self)})"


@broken("secrets_show_nowhere", "a password shows in a log record")
class Logs(BoxPlugin):
    def start(self) -> ServiceHandle:
        handle = super().start()
        logging.getLogger("box").debug("started %s", handle.url)
        return handle


@broken("secrets_show_nowhere", "a password shows in what is printed")
class Prints(BoxPlugin):
    def start(self) -> ServiceHandle:
        handle = super().start()
        print("started", dict(handle.metadata))
        return handle


@broken("secrets_show_nowhere", "a password shows in a span")
class Traces(BoxPlugin):
    def start(self) -> ServiceHandle:
        with spans.plugin_start_span(self.name) as span:
            span.set("cleanroom.box.settings", f"pass={self._password}")
            return super().start()


@broken("secrets_show_nowhere", "a password shows in logs(handle)")
class LogsOfTheServiceTell(BoxPlugin):
    def logs(self, handle: ServiceHandle, tail: int = 100) -> str:
        return f"started with {self._password}"


@broken("secrets_show_nowhere", "nobody can tell whether it shows")
class Trivial(BoxPlugin):
    def __init__(self, name: str, password: str, **options: Any) -> None:
        super().__init__(name, "test", **options)


@broken("spans_are_one_tree", "'wait' is in no tree")
class LosesItsThread(BoxPlugin):
    def start(self) -> ServiceHandle:
        thread = threading.Thread(target=self.wait)
        thread.start()
        thread.join()
        return super().start()

    def wait(self) -> None:
        with trace.get_tracer("box").start_as_current_span("wait"):
            pass


@broken("spans_are_one_tree", "has in its name what differs")
class NamesSpansForServices(BoxPlugin):
    def facts(self, folder: Path, pid: int, port: int) -> dict[str, Any]:
        with trace.get_tracer("box").start_as_current_span(f"start {folder.name}"):
            return super().facts(folder, pid, port)


@broken("spans_are_one_tree", "one start has 2 spans")
class StartsTwice(BoxPlugin):
    def start(self) -> ServiceHandle:
        attributes = {"cleanroom.service.name": self.name}
        name = "cleanroom.service.start"
        with trace.get_tracer("box").start_as_current_span(name, attributes=attributes):
            return super().start()


# ----------------------------------------------------------------------------- health


@broken("health_check_keeps_its_bound", "did not answer within its bound of 0.4 s")
class WaitsForEver(BoxPlugin):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "health_timeout": 0.4})

    def ask(
        self, handle: ServiceHandle, do: str, text: str = "", timeout: float | None = 1.0
    ) -> list[str]:
        return super().ask(handle, do, text, None)


@broken("a_killed_service_is_unhealthy", "a service that was killed says HEALTHY")
class AssumesTheBest(BoxPlugin):
    def health_check(self, handle: ServiceHandle) -> HealthStatus:
        return HealthStatus.HEALTHY


@broken("a_killed_service_is_unhealthy", "health_check of a service that was killed raised")
class RaisesWhenDown(BoxPlugin):
    def health_check(self, handle: ServiceHandle) -> HealthStatus:
        self.ask(handle, "read")
        return HealthStatus.HEALTHY


@broken("a_killed_service_is_unhealthy", "returned True")
class AnswersYes(BoxPlugin):
    def health_check(self, handle: ServiceHandle) -> Any:
        return True


@broken("a_killed_service_is_unhealthy", "nobody has said how to kill")
class Immortal(BoxPlugin):
    kill: Any = None

    def stop(self, handle: ServiceHandle) -> None:
        BoxPlugin().stop(handle)


@broken("a_killed_service_is_unhealthy", "stop() of a service that was killed raised")
class StopsTheLivingOnly(BoxPlugin):
    def stop(self, handle: ServiceHandle) -> None:
        self.ask(handle, "read")
        super().stop(handle)


# ------------------------------------------------------------------------------- stop


@broken("stop_is_complete_and_may_be_repeated", "there was still process")
class SaysThatItStops(BoxPlugin):
    def stop(self, handle: ServiceHandle) -> None:
        logging.getLogger("box").info("stopping")


@broken("stop_is_complete_and_may_be_repeated", "has ended but was not waited for")
class LeavesZombies(BoxPlugin):
    def end(self, service_id: str) -> None:
        """Wait for nothing."""

    def stop(self, handle: ServiceHandle) -> None:
        super().stop(handle)
        os.waitid(os.P_PID, int(handle.require("pid")), os.WEXITED | os.WNOWAIT)


@broken("stop_is_complete_and_may_be_repeated", "somebody who listens")
class LeavesAChild(BoxPlugin):
    def command(self, listener: int) -> list[str]:
        return ["/bin/sh", "-c", 'sleep 5 & exec "$@"', "sh", *super().command(listener)]


@broken("stop_is_complete_and_may_be_repeated", "of a service that is stopped already raised")
class StopsOnce(BoxPlugin):
    def stop(self, handle: ServiceHandle) -> None:
        (Path(handle.require("folder")) / "log").unlink()
        super().stop(handle)


# -------------------------------------------------------------------------- two at once


@broken("services_started_at_once_do_not_meet", "one of two starts at once raised ProcessError")
class OnOnePort(BoxPlugin):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: ClassVar[int] = free.getsockname()[1]


@broken("services_started_at_once_do_not_meet", "have the same id")
class OneForAll(BoxPlugin):
    lock: ClassVar[threading.Lock] = threading.Lock()
    handle: ClassVar[ServiceHandle | None] = None

    def start(self) -> ServiceHandle:
        with self.lock:
            type(self).handle = type(self).handle or super().start()
            assert self.handle
            return self.handle


@broken("stop_is_complete_and_may_be_repeated", "stopping one service left another one")
class StopsAll(BoxPlugin):
    handles: ClassVar[list[ServiceHandle]] = []

    def start(self) -> ServiceHandle:
        self.handles.append(super().start())
        return self.handles[-1]

    def stop(self, handle: ServiceHandle) -> None:
        for each in self.handles:
            super().stop(each)


# ----------------------------------------------------------------------- a failed start


@broken("a_failed_start_leaves_nothing", "FileNotFoundError, which is no CleanroomError")
class FailsInItsOwnWay(BoxPlugin):
    def start(self) -> ServiceHandle:
        try:
            return super().start()
        except ProcessError as error:
            raise error.__cause__ or error from None


@broken("a_failed_start_leaves_nothing", "raised while a ProcessError was handled")
class LosesTheCause(BoxPlugin):
    def start(self) -> ServiceHandle:
        try:
            return super().start()
        except ProcessError:
            raise ServiceError("no", service=self.name) from None


@broken("a_failed_start_leaves_nothing", "does not say which service")
class FailsAnonymously(BoxPlugin):
    def start(self) -> ServiceHandle:
        raise ServiceError("no")


@broken("a_failed_start_leaves_nothing", "there was still process")
class FailsAndLeaves(BoxPlugin):
    def start(self) -> ServiceHandle:
        BoxPlugin().start()
        raise ServiceError("no", service=self.name)


@broken("a_failed_start_leaves_nothing", "a password shows in the error of a failed start")
class FailsTelling(BoxPlugin):
    def start(self) -> ServiceHandle:
        raise ServiceError(f"wrong: {self._password}", service=self.name)


@broken("a_failed_start_leaves_nothing", "`failing_plugin` starts")
class NeverFails(BoxPlugin):
    def start(self) -> ServiceHandle:
        return BoxPlugin().start()


# ----------------------------------------------------------------------- logs and slices


@broken("logs_are_the_services", "logs(handle) is empty")
class Silent(BoxPlugin):
    def logs(self, handle: ServiceHandle, tail: int = 100) -> str:
        return ""


@broken("logs_are_the_services", "logs(handle, 1) has")
class TellsAll(BoxPlugin):
    def logs(self, handle: ServiceHandle, tail: int = 100) -> str:
        return super().logs(handle)


@broken("slice_is_clean", "holds what an earlier test has written: left by a test")
class DirtySlices(BoxPlugin):
    def ask(
        self, handle: ServiceHandle, do: str, text: str = "", timeout: float | None = 1.0
    ) -> list[str]:
        return [] if do == "clear" else super().ask(handle, do, text, timeout)


@broken("slice_is_clean", "URL of a slice changes")
class WanderingSlices(BoxPlugin):
    times: ClassVar[list[int]] = []

    def drawer(self, handle: ServiceHandle, drawer: str) -> ServiceHandle:
        self.times.append(1)
        return super().drawer(handle, f"{drawer}-{len(self.times)}")


@broken("slice_is_clean", "URL of a slice changes")
class KeepsSlicesOfFailedTests(BoxPlugin):
    leases: ClassVar[list[Any]] = []

    @contextlib.contextmanager
    def isolate(self, handle: ServiceHandle) -> Iterator[ServiceHandle]:
        lease = super().isolate(handle)
        self.leases.append(lease)
        yield lease.__enter__()
        lease.__exit__(None, None, None)


@broken("slice_is_clean", "hides the error of the test")
class HidesErrors(BoxPlugin):
    @contextlib.contextmanager
    def isolate(self, handle: ServiceHandle) -> Iterator[ServiceHandle]:
        with contextlib.suppress(Exception), super().isolate(handle) as leased:
            yield leased


@broken("slice_is_clean", "the handle of a slice lacks backend")
class BareSlices(BoxPlugin):
    def drawer(self, handle: ServiceHandle, drawer: str) -> ServiceHandle:
        facts = dict(super().drawer(handle, drawer).metadata)
        del facts["backend"]
        return ServiceHandle(handle.id, handle.service_name, facts)


@broken("slices_do_not_meet", "have the same URL")
class OneSlice(BoxPlugin):
    def drawer(self, handle: ServiceHandle, drawer: str) -> ServiceHandle:
        return super().drawer(handle, "drawer-1")


@broken("slices_do_not_meet", "what is written into one slice is seen in another")
class SlicesByNameOnly(BoxPlugin):
    def drawer(self, handle: ServiceHandle, drawer: str) -> ServiceHandle:
        leased = super().drawer(handle, drawer)
        return ServiceHandle(
            leased.id, leased.service_name, {**leased.metadata, "drawer": "service"}
        )


class TestNothingFilledIn(PluginConformance):
    """A suite that has forgotten the fixture."""


BROKEN["TestNothingFilledIn"] = ("test_is_a_plugin", "has no fixture `plugin`")
