from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cleanroom import (
    CleanroomEnvironment,
    ConfigurationError,
    HealthStatus,
    InternalError,
    ServiceError,
    ServiceHandle,
    ServicePlugin,
    ValidationError,
)

if TYPE_CHECKING:
    from conftest import Site

Tree = Callable[[], dict[str, str | None]]
WAIT = 20
"""Seconds after which a barrier or event that nobody reached fails the test."""


class Hand:
    """A plugin written by hand: the four members, no base class. It keeps a diary."""

    def __init__(
        self,
        name: str,
        diary: list[str] | None = None,
        *,
        on_start: Callable[[], object] = lambda: None,
        on_stop: Callable[[], object] = lambda: None,
        health: Callable[[], HealthStatus] = lambda: HealthStatus.HEALTHY,
    ) -> None:
        self.name = name
        self.diary = [] if diary is None else diary
        self.on_start, self.on_stop, self.health = on_start, on_stop, health

    def start(self) -> ServiceHandle:
        self.on_start()
        self.diary.append(f"+{self.name}")
        return ServiceHandle(f"1/{self.name}", self.name, {"url": f"hand://{self.name}"})

    def stop(self, handle: ServiceHandle) -> None:
        self.on_stop()
        self.diary.append(f"-{handle.service_name}")

    def health_check(self, handle: ServiceHandle) -> HealthStatus:
        return self.health()


def raising(error: BaseException) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


def shop(diary: list[str]) -> CleanroomEnvironment:
    """An api that needs db and cache, registered before what it depends on."""
    environment = CleanroomEnvironment()
    environment.register(Hand("api", diary), depends_on=["db", "cache"])
    return environment.register(Hand("db", diary)).register(Hand("cache", diary))


# ------------------------------------------------------------- starting and stopping


def test_entering_starts_nothing_and_leaving_stops_everything() -> None:
    """A service starts when it is first asked for, and is gone after the with statement."""
    diary: list[str] = []
    with CleanroomEnvironment().register(Hand("db", diary)).register(Hand("cache", diary)) as env:
        assert diary == []
        assert env["db"].url == "hand://db"
        assert env["db"] is env.start("db")
        assert diary == ["+db"]
    assert diary == ["+db", "-db"]
    assert env.services == {}


def test_dependencies_start_before_and_stop_after() -> None:
    """A service starts after all it depends on, and is stopped before any of it."""
    diary: list[str] = []
    with shop(diary) as env:
        assert env["api"].service_name == "api"
    assert diary.index("+api") == 2
    assert diary.index("-api") == 3
    assert sorted(diary[4:]) == ["-cache", "-db"]


def test_start_starts_only_what_is_needed() -> None:
    """Asking for a service leaves those alone that it does not depend on."""
    diary: list[str] = []
    with shop(diary) as env:
        env.start("cache")
        assert diary == ["+cache"]
        assert list(env.services) == ["cache"]
        assert list(env) == ["api", "db", "cache"]
        assert "cache" in env


def test_start_all_returns_all_handles() -> None:
    """`start_all` starts every service and returns the handles by name."""
    with shop([]) as env:
        handles = env.start_all()
        assert set(handles) == {"api", "db", "cache"}
        assert handles == env.services
        assert env.start_all() == handles


def test_services_is_read_only() -> None:
    """The mapping of running services cannot be written to."""
    env = shop([])
    with pytest.raises(TypeError):
        env.services["db"] = env.services  # type: ignore[index]


def test_stop_stops_dependents_first() -> None:
    """Stopping a service stops those that depend on it, however indirectly, and no others."""
    diary: list[str] = []
    env = shop(diary).register(Hand("page", diary), depends_on=["api"])
    env.start_all()
    env.stop("db")
    assert diary[-3:] == ["-page", "-api", "-db"]
    assert list(env.services) == ["cache"]
    env.stop_all()


def test_stopping_twice_is_fine() -> None:
    """Stopping what does not run does nothing; a stopped service can be started again."""
    diary: list[str] = []
    env = CleanroomEnvironment().register(Hand("db", diary))
    env.stop("db")
    env.stop_all()
    env.start("db")
    env.stop("db")
    env.stop("db")
    env.start("db")
    env.stop_all()
    assert diary == ["+db", "-db", "+db", "-db"]


def test_plugin_returns_the_registered_object() -> None:
    """`plugin` returns the plugin of a service that runs by then."""
    hand = Hand("db")
    with CleanroomEnvironment().register(hand) as env:
        assert env.plugin("db") is hand
        assert "db" in env.services


def test_independent_services_start_at_the_same_time() -> None:
    """Services that do not depend on each other are inside their `start` at once."""
    barrier = threading.Barrier(3)
    env = CleanroomEnvironment()
    for name in ("a", "b", "c"):
        env.register(Hand(name, on_start=lambda: barrier.wait(WAIT)))
    with env:
        assert set(env.start_all()) == {"a", "b", "c"}


def test_a_dependent_does_not_wait_for_strangers() -> None:
    """A service starts when its own dependencies run, though others are still starting."""
    api_started = threading.Event()

    def slow() -> None:
        assert api_started.wait(WAIT)

    env = CleanroomEnvironment().register(Hand("slow", on_start=slow)).register(Hand("db"))
    with env.register(Hand("api", on_start=api_started.set), depends_on=["db"]):
        assert len(env.start_all()) == 3


def test_a_long_chain_starts_in_order() -> None:
    """A chain of dependencies starts from its end, in order."""
    diary: list[str] = []
    env = CleanroomEnvironment()
    for number in range(20):
        needs = [f"s{number + 1}"] if number < 19 else []
        env.register(Hand(f"s{number}", diary), depends_on=needs)
    env.start("s0")
    assert diary == [f"+s{number}" for number in reversed(range(20))]
    env.stop_all()


def test_two_threads_that_ask_at_once_start_it_once() -> None:
    """A service that many threads ask for at the same time is started once, for all of them."""
    diary: list[str] = []
    barrier = threading.Barrier(8)
    env = shop(diary)

    def ask(_: int) -> ServiceHandle:
        barrier.wait(WAIT)
        return env["api"]

    with ThreadPoolExecutor(8) as pool:
        handles = list(pool.map(ask, range(8)))
    assert all(handle is handles[0] for handle in handles)
    assert sorted(diary) == ["+api", "+cache", "+db"]


def test_nobody_gets_a_service_that_is_about_to_be_rolled_back() -> None:
    """A thread that asks for `db` while it starts along with a failing `api` gets its own."""
    diary: list[str] = []
    db_is_up, asked = threading.Event(), threading.Event()

    def fail_later() -> None:
        db_is_up.set()
        assert asked.wait(WAIT)
        raise RuntimeError("api broke")

    env = CleanroomEnvironment().register(Hand("db", diary))
    env.register(Hand("api", diary, on_start=fail_later), depends_on=["db"])

    def ask() -> ServiceHandle:
        assert db_is_up.wait(WAIT)
        asked.set()
        return env["db"]

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask)
        with pytest.raises(RuntimeError, match="api broke"):
            env.start("api")
        answer.result(WAIT)
    assert diary == ["+db", "-db", "+db"]
    assert list(env.services) == ["db"]


# ---------------------------------------------------------------------- when it fails


def test_failure_rolls_the_rest_back_in_reverse_order() -> None:
    """When a service fails, those started for it are stopped, last first; its error is raised."""
    diary: list[str] = []
    error = ServiceError("no luck", service="api")
    env = CleanroomEnvironment().register(Hand("a", diary))
    env.register(Hand("b", diary), depends_on=["a"])
    env.register(Hand("api", diary, on_start=raising(error)), depends_on=["b"])
    with pytest.raises(ServiceError) as caught:
        env.start_all()
    assert caught.value is error
    assert diary == ["+a", "+b", "-b", "-a"]
    assert env.services == {}


def test_what_ran_before_is_not_rolled_back() -> None:
    """A failed start leaves services running that an earlier start brought up."""
    diary: list[str] = []
    env = CleanroomEnvironment().register(Hand("db", diary))
    env.register(Hand("api", diary, on_start=raising(RuntimeError("no"))), depends_on=["db"])
    env.start("db")
    with pytest.raises(RuntimeError):
        env.start("api")
    assert list(env.services) == ["db"]
    env.stop_all()


def test_error_names_what_was_not_started() -> None:
    """The error of a service names in a note the services that were not started because of it."""
    env = shop([]).register(Hand("page"), depends_on=["api"])
    env.register(Hand("bad", on_start=raising(RuntimeError("no"))))
    env.register(Hand("last"), depends_on=["bad"])
    with pytest.raises(RuntimeError) as caught:
        env.start("last")
    assert caught.value.__notes__ == ["not started because of this: last"]


def test_stop_errors_of_the_roll_back_are_notes() -> None:
    """An error while rolling back is a note of the original one, secrets hidden; others stop."""
    diary: list[str] = []
    stuck = raising(RuntimeError("stuck at redis://:s3cret@h"))
    env = CleanroomEnvironment().register(Hand("a", diary))
    env.register(Hand("b", diary, on_stop=stuck), depends_on=["a"])
    env.register(Hand("c", on_start=raising(RuntimeError("no"))), depends_on=["b"])
    with pytest.raises(RuntimeError, match="no") as caught:
        env.start("c")
    assert caught.value.__notes__ == [
        "stopping 'b' failed as well: RuntimeError('stuck at redis://:***@h')"
    ]
    assert diary == ["+a", "+b", "-a"]
    assert list(env.services) == ["b"]


def test_second_failure_is_a_note_of_the_first() -> None:
    """When two services fail, one error is raised and the other is in its notes."""
    barrier = threading.Barrier(2)

    def fail() -> None:
        barrier.wait(WAIT)
        raise RuntimeError("no")

    env = CleanroomEnvironment()
    env.register(Hand("a", on_start=fail)).register(Hand("b", on_start=fail))
    with pytest.raises(RuntimeError) as caught:
        env.start_all()
    (note,) = caught.value.__notes__
    assert "failed as well: RuntimeError('no')" in note


def test_long_start_can_learn_that_another_failed() -> None:
    """A plugin that asks `given_up` while it waits learns that a service beside it failed."""
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        for _ in range(WAIT * 1000):
            if CleanroomEnvironment.given_up():
                raise ServiceError("given up")
            threading.Event().wait(0.001)

    def fail() -> None:
        assert waiting.wait(WAIT)
        raise RuntimeError("no")

    env = CleanroomEnvironment()
    env.register(Hand("slow", on_start=wait)).register(Hand("bad", on_start=fail))
    assert not CleanroomEnvironment.given_up()
    with pytest.raises(RuntimeError, match="no"):
        env.start_all()


def test_interrupted_start_rolls_back() -> None:
    """A KeyboardInterrupt out of a `start` stops what had been started, and goes on."""
    diary: list[str] = []
    env = CleanroomEnvironment().register(Hand("db", diary))
    env.register(Hand("api", diary, on_start=raising(KeyboardInterrupt())), depends_on=["db"])
    with pytest.raises(KeyboardInterrupt):
        env.start("api")
    assert diary == ["+db", "-db"]


def test_ctrl_c_during_a_parallel_start_rolls_back(site: Site) -> None:
    """Ctrl-C while several services start ends the waiting and stops what had come up."""
    code = f"""
        import os, signal, sys, time
        from cleanroom import CleanroomEnvironment, ServiceHandle

        class Plugin:
            def __init__(self, name):
                self.name = name
            def start(self):
                if self.name == "api":
                    time.sleep(0.2)  # Lets the main thread come to wait.
                    os.kill(os.getpid(), {int(signal.SIGINT)})
                    while not CleanroomEnvironment.given_up():
                        time.sleep(0.001)
                    raise RuntimeError("given up")
                return ServiceHandle("1", self.name)
            def stop(self, handle):
                print("stopped", self.name)
            def health_check(self, handle): ...

        signal.signal(signal.SIGINT, signal.default_int_handler)
        env = CleanroomEnvironment().register(Plugin("api"), ["db"]).register(Plugin("db"))
        env.register(Plugin("page"), ["api"])
        try:
            env.start_all()
        except KeyboardInterrupt as error:
            print("interrupted", dict(env.services), *error.__notes__)
    """
    assert site.run(code).splitlines() == [
        "stopped db",
        "interrupted {} not started because of this: page 'api' failed as well: "
        "RuntimeError('given up')",
    ]


def test_second_ctrl_c_leaves_nothing_that_comes_up_later(site: Site) -> None:
    """A service that comes up after a second Ctrl-C ended the waiting is stopped at once."""
    code = f"""
        import os, signal, threading, time
        from cleanroom import CleanroomEnvironment, ServiceHandle

        over = threading.Event()

        class Plugin:
            def __init__(self, name):
                self.name = name
            def start(self):
                time.sleep(0.2)  # Lets the main thread come to wait.
                os.kill(os.getpid(), {int(signal.SIGINT)})
                while not CleanroomEnvironment.given_up():
                    time.sleep(0.001)
                time.sleep(0.2)
                os.kill(os.getpid(), {int(signal.SIGINT)})
                over.wait(20)
                return ServiceHandle("1", self.name)
            def stop(self, handle):
                print("stopped", self.name)
            def health_check(self, handle): ...

        signal.signal(signal.SIGINT, signal.default_int_handler)
        env = CleanroomEnvironment().register(Plugin("db")).register(Plugin("api"), ["db"])
        try:
            env.start_all()
        except KeyboardInterrupt:
            print(dict(env.services), flush=True)
            over.set()
    """
    assert site.run(code).splitlines() == ["{}", "stopped db"]


def test_start_that_returns_no_handle_is_a_broken_contract() -> None:
    """A plugin whose `start` returns no handle raises InternalError, which names the service."""
    hand = Hand("db")
    hand.start = lambda: None  # type: ignore[assignment,method-assign,return-value]
    with pytest.raises(InternalError, match=r"'db'.*NoneType"):
        CleanroomEnvironment().register(hand).start("db")


def test_all_are_stopped_though_one_refuses() -> None:
    """`stop_all` tries every service, then raises the first error; stopping again tries again."""
    diary: list[str] = []
    errors: list[BaseException] = [RuntimeError("b stuck"), RuntimeError("c stuck")]
    env = CleanroomEnvironment().register(Hand("a", diary))
    env.register(Hand("b", diary, on_stop=lambda: errors and raising(errors[0])()), ["a"])
    env.register(Hand("c", diary, on_stop=lambda: errors and raising(errors[1])()), ["b"])
    env.start_all()
    with pytest.raises(RuntimeError, match="c stuck") as caught:
        env.stop_all()
    assert caught.value.__notes__ == [
        "stopping 'c': RuntimeError('c stuck')",
        "stopping 'b': RuntimeError('b stuck')",
    ]
    assert diary == ["+a", "+b", "+c", "-a"]
    assert list(env.services) == ["b", "c"]
    errors.clear()
    env.stop_all()
    assert diary[-2:] == ["-c", "-b"]


def test_error_of_the_body_goes_before_stop_errors() -> None:
    """An error in the with statement is raised as it is; a stop error becomes its note."""
    env = CleanroomEnvironment().register(Hand("db", on_stop=raising(RuntimeError("stuck"))))
    env.start("db")
    with pytest.raises(ValueError, match="mine") as caught, env:
        raise ValueError("mine")
    assert "stuck" in caught.value.__notes__[0]


def test_stop_error_is_raised_where_the_body_was_fine() -> None:
    """A stop error at the end of a with statement is raised."""
    env = CleanroomEnvironment().register(Hand("db", on_stop=raising(RuntimeError("stuck"))))
    with pytest.raises(RuntimeError, match="stuck"), env:
        env.start("db")


# ------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("member", ["name", "start", "stop", "health_check"])
def test_register_names_the_missing_member(member: str) -> None:
    """An object that lacks one of the four members is refused, the member named."""
    members = {"name": "x", "start": len, "stop": len, "health_check": len}
    del members[member]
    half = type("Half", (), members)()
    with pytest.raises(ValidationError, match=f"Half lacks {member}"):
        CleanroomEnvironment().register(half)


def test_register_refuses_a_class() -> None:
    """A plugin class in place of an object is refused."""
    with pytest.raises(ValidationError, match="class Hand"):
        CleanroomEnvironment().register(Hand)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", None, 3])
def test_register_refuses_a_plugin_without_a_name(name: object) -> None:
    """A plugin whose name is empty or no text is refused."""
    with pytest.raises(ValidationError, match="name"):
        CleanroomEnvironment().register(Hand(name))  # type: ignore[arg-type]


def test_register_refuses_a_taken_name() -> None:
    """A second service of the same name is refused."""
    with pytest.raises(ValidationError, match="'db' is taken"):
        CleanroomEnvironment().register(Hand("db")).register(Hand("db"))


def test_depends_on_as_a_text_is_refused() -> None:
    """A text in place of a list of names is refused, for it would be taken letter by letter."""
    with pytest.raises(ValidationError, match="depends_on"):
        CleanroomEnvironment().register(Hand("api"), depends_on="db")


@pytest.mark.parametrize("ask", ["__getitem__", "start", "stop", "plugin"])
def test_unknown_service_suggests_the_nearest(ask: str) -> None:
    """Asking for an unknown service raises ConfigurationError with the nearest known name."""
    with pytest.raises(ConfigurationError, match="did you mean 'cache'"):
        getattr(shop([]), ask)("cahce")


def test_unknown_dependency_names_who_needs_it() -> None:
    """A dependency that nobody registered: the error names both and starts nothing."""
    diary: list[str] = []
    env = CleanroomEnvironment().register(Hand("db", diary))
    env.register(Hand("api", diary), depends_on=["db", "cahe"])
    with pytest.raises(ConfigurationError, match=r"'api'.*'cahe'"):
        env.start("api")
    assert diary == []


def test_cycle_is_named() -> None:
    """Services that depend on each other in a circle are named in the error."""
    env = CleanroomEnvironment().register(Hand("a"), ["b"]).register(Hand("b"), ["c"])
    env.register(Hand("c"), ["b"])
    with pytest.raises(ConfigurationError, match="b -> c -> b"):
        env.start("a")


def test_start_may_ask_for_what_it_depends_on() -> None:
    """A plugin may ask the environment, while it starts, for a service it depends on."""
    env = CleanroomEnvironment().register(Hand("db")).register(Hand("cache"))
    seen: list[str] = []
    api = Hand("api", on_start=lambda: seen.append(env["db"].url))
    env.register(api, depends_on=["db"])
    with env:
        env.start_all()
    assert seen == ["hand://db"]


def test_start_may_not_ask_for_anything_else() -> None:
    """A plugin that asks, while it starts, for a service it does not depend on gets an error."""
    env = CleanroomEnvironment().register(Hand("db"))
    env.register(Hand("api", on_start=lambda: env["db"]))
    with pytest.raises(ConfigurationError, match="depends_on"):
        env.start("api")


def test_start_may_not_stop() -> None:
    """A plugin that stops services of its environment while it starts gets an error."""
    env = CleanroomEnvironment()
    env.register(Hand("api", on_start=env.stop_all))
    with pytest.raises(ConfigurationError, match="from within a start"):
        env.start("api")


def test_context_copied_from_a_start_is_free_afterwards() -> None:
    """What runs on in the context of a finished start may ask for services like anybody else."""
    import contextvars

    contexts: list[contextvars.Context] = []
    env = CleanroomEnvironment().register(Hand("db"))
    env.register(Hand("api", on_start=lambda: contexts.append(contextvars.copy_context())))
    with env:
        env.start("api")
        assert contexts[0].run(env.start, "db").service_name == "db"


# ---------------------------------------------------------------------- built services


def test_declared_service_is_built_with_the_handles_it_depends_on() -> None:
    """`build` is called right before the start, with the handles of the dependencies by name."""
    seen: list[Mapping[str, ServiceHandle]] = []

    def build(handles: Mapping[str, ServiceHandle]) -> ServicePlugin:
        seen.append(handles)
        return Hand("api")

    env = CleanroomEnvironment().declare("api", build, ["db"]).register(Hand("db"))
    with env.register(Hand("other")):
        assert seen == []
        env.start_all()
        assert list(seen[0]) == ["db"]
        assert seen[0]["db"].url == "hand://db"
        env.stop("api")
        env.start("api")
        assert len(seen) == 2


def test_build_error_comes_before_anything_starts() -> None:
    """A service without dependencies is built first: where that fails, nothing starts."""
    diary: list[str] = []

    def build(_: Mapping[str, ServiceHandle]) -> ServicePlugin:
        raise ConfigurationError("bad option")

    env = CleanroomEnvironment().register(Hand("db", diary)).declare("api", build)
    with pytest.raises(ConfigurationError, match="bad option"):
        env.start_all()
    assert diary == []


def test_built_plugin_must_have_the_declared_name() -> None:
    """A plugin that was built with another name than declared is a broken contract."""
    env = CleanroomEnvironment().declare("api", lambda _: Hand("other"))
    with pytest.raises(InternalError, match=r"'api'.*'other'"):
        env.start("api")


def test_built_object_must_be_a_plugin() -> None:
    """What `build` returns must have the four members."""
    env = CleanroomEnvironment().declare("api", lambda _: object())  # type: ignore[arg-type,return-value]
    with pytest.raises(ValidationError, match="lacks name"):
        env.start("api")


# --------------------------------------------------------------------- health and spans


def test_health_asks_all_at_once() -> None:
    """`health` asks all running services at the same time, and no others."""
    barrier = threading.Barrier(2)

    def answer(status: HealthStatus) -> Callable[[], HealthStatus]:
        def wait() -> HealthStatus:
            barrier.wait(WAIT)
            return status

        return wait

    env = CleanroomEnvironment().register(Hand("a", health=answer(HealthStatus.HEALTHY)))
    env.register(Hand("b", health=answer(HealthStatus.UNHEALTHY))).register(Hand("idle"))
    assert env.health() == {}
    env.start("a")
    env.start("b")
    assert env.health() == {"a": HealthStatus.HEALTHY, "b": HealthStatus.UNHEALTHY}
    env.stop_all()


def test_health_check_that_raises_is_unknown(caplog: pytest.LogCaptureFixture) -> None:
    """A plugin that raises from `health_check`, against its contract, gives UNKNOWN and a log."""
    hand = Hand("db", health=raising(RuntimeError("boom")))  # type: ignore[arg-type]
    with CleanroomEnvironment().register(hand) as env:
        env.start("db")
        assert env.health() == {"db": HealthStatus.UNKNOWN}
    assert "health check of 'db' raised RuntimeError: boom" in caplog.text


def test_start_is_one_tree_of_spans_across_threads(tree: Tree) -> None:
    """The spans of services that start in threads are children of the environment's."""
    with shop([]) as env:
        env.start_all()
        env.health()
    assert tree() == {
        "cleanroom.environment.start": None,
        "cleanroom.service.start api": "cleanroom.environment.start",
        "cleanroom.service.start db": "cleanroom.environment.start",
        "cleanroom.service.start cache": "cleanroom.environment.start",
        "cleanroom.service.health_check api": None,
        "cleanroom.service.health_check db": None,
        "cleanroom.service.health_check cache": None,
        "cleanroom.environment.stop": None,
        "cleanroom.service.stop api": "cleanroom.environment.stop",
        "cleanroom.service.stop db": "cleanroom.environment.stop",
        "cleanroom.service.stop cache": "cleanroom.environment.stop",
    }
