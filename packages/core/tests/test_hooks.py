from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from cleanroom import (
    CleanroomEnvironment,
    ConfigurationError,
    HealthStatus,
    ServiceHandle,
    discovery,
    hooks,
)
from cleanroom.hooks import hookimpl

if TYPE_CHECKING:
    from conftest import Site


class Hand:
    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name, self.error = name, error

    def start(self) -> ServiceHandle:
        if self.error:
            raise self.error
        return ServiceHandle("1", self.name)

    def stop(self, handle: ServiceHandle) -> None: ...

    def health_check(self, handle: ServiceHandle) -> HealthStatus:
        return HealthStatus.HEALTHY


class Diary:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @hookimpl
    def cleanroom_service_started(self, handle: ServiceHandle) -> None:
        self.lines.append(f"+{handle.service_name}")

    @hookimpl
    def cleanroom_service_stopped(self, handle: ServiceHandle) -> None:
        self.lines.append(f"-{handle.service_name}")

    @hookimpl
    def cleanroom_service_failed(self, service_name: str, error: BaseException) -> None:
        self.lines.append(f"!{service_name}: {error}")


@pytest.fixture
def diary(here: Site) -> Iterator[Diary]:
    """An observer registered for the duration of a test."""
    observer = Diary()
    discovery.hook_manager().register(observer)
    yield observer
    discovery.refresh()


def register(*implementations: object) -> None:
    for implementation in implementations:
        discovery.hook_manager().register(implementation)


def test_observers_are_told_of_start_stop_and_failure(diary: Diary) -> None:
    """An observer is told what started, failed and stopped, a roll-back included."""
    env = CleanroomEnvironment().register(Hand("db"))
    env.register(Hand("api", RuntimeError("no")), depends_on=["db"])
    with pytest.raises(RuntimeError):
        env.start("api")
    assert diary.lines == ["+db", "!api: no", "-db"]


def test_observer_that_raises_breaks_nothing(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """An observer that raises is logged, with secrets hidden; service and others go on."""

    class Clumsy:
        @hookimpl
        def cleanroom_service_started(self) -> None:
            raise RuntimeError("redis://:s3cret@h dropped")

    register(Clumsy())
    with CleanroomEnvironment().register(Hand("db")) as env:
        env.start("db")
    assert diary.lines == ["+db", "-db"]
    (message,) = caplog.messages
    assert "cleanroom_service_started" in message
    assert "redis://:***@h dropped" in message


@pytest.mark.parametrize("answer", ["no root", ["no root"], ("no root",), RuntimeError("no root")])
def test_validator_keeps_a_plugin_from_starting(diary: Diary, answer: object) -> None:
    """What a validator returns or raises is a ConfigurationError before anything starts."""

    class Strict:
        @hookimpl
        def cleanroom_validate(self, plugin: Hand) -> object:
            if plugin.name != "bad":
                return None
            if isinstance(answer, Exception):
                raise answer
            return answer

    discovery.hook_manager().register(Strict(), name="strict 1.0")
    env = CleanroomEnvironment().register(Hand("db")).register(Hand("bad"), depends_on=["db"])
    env.start("db")
    env.stop("db")
    with pytest.raises(ConfigurationError, match=r"'bad': no root \(says strict 1.0\)") as caught:
        env.start_all()
    assert caught.value.__cause__ is (answer if isinstance(answer, Exception) else None)
    assert diary.lines[:2] == ["+db", "-db"]
    assert diary.lines[2].startswith("!bad")
    assert len(diary.lines) == 3


def test_plugin_is_told_before_validators_are_asked(diary: Diary) -> None:
    """A plugin may begin what takes time while validators are found and asked."""
    told: list[str] = []

    class Hasty(Hand):
        def about_to_start(self) -> None:
            told.append("about to start")

    class Watching:
        @hookimpl
        def cleanroom_validate(self, plugin: Hand) -> None:
            told.append(f"validate {plugin.name}")

    register(Watching())
    with CleanroomEnvironment().register(Hasty("db")) as env:
        env.start("db")
    assert told == ["about to start", "validate db"]


def test_all_objections_are_told(here: Site) -> None:
    """The objections of all validators stand in one error."""

    class Strict:
        def __init__(self, text: str) -> None:
            self.text = text

        @hookimpl
        def cleanroom_validate(self) -> list[str]:
            return [self.text, self.text.upper()]

    register(Strict("a"), Strict("b"))
    with pytest.raises(ConfigurationError) as caught:
        hooks.validate(Hand("db"))
    assert all(text in str(caught.value) for text in ("a (", "A (", "b (", "B ("))


def test_fixture_modules_are_collected_once(here: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The modules that implementations name are returned each once; one that raises is logged."""

    class Some:
        @hookimpl
        def cleanroom_fixture_modules(self) -> list[str]:
            return ["a.fixtures", "b.fixtures"]

    class Same:
        @hookimpl
        def cleanroom_fixture_modules(self) -> str:
            return "a.fixtures"

    class Bad:
        @hookimpl
        def cleanroom_fixture_modules(self) -> str:
            raise RuntimeError("boom")

    register(Some(), Same(), Bad())
    modules = hooks.fixture_modules()
    assert modules.count("a.fixtures") == 1
    assert modules.count("b.fixtures") == 1
    assert "boom" in caplog.text


def test_wrappers_are_not_called(here: Site) -> None:
    """A hook wrapper, which would tie implementations to each other, is passed over."""

    class Wrapper:
        @hookimpl(wrapper=True)
        def cleanroom_fixture_modules(self) -> Iterator[None]:
            raise AssertionError
            yield

    register(Wrapper())
    assert isinstance(hooks.fixture_modules(), list)


def test_installed_hooks_take_part(site: Site) -> None:
    """An observer and a validator of two other distributions work as installed."""
    observer = """
        from cleanroom.hooks import hookimpl

        @hookimpl
        def cleanroom_service_started(handle):
            print("observed", handle.service_name)
    """
    validator = """
        from cleanroom.hooks import hookimpl

        @hookimpl
        def cleanroom_validate(plugin):
            return "not on my watch" if plugin.name == "bad" else None
    """
    site.install("watch-box", hooks={"watch": "watching"}, modules={"watching": observer})
    site.install("strict-box", hooks={"strict": "strictly"}, modules={"strictly": validator})
    code = """
        from cleanroom import CleanroomEnvironment, ConfigurationError, HealthStatus, ServiceHandle

        class Hand:
            def __init__(self, name): self.name = name
            def start(self): return ServiceHandle("1", self.name)
            def stop(self, handle): pass
            def health_check(self, handle): return HealthStatus.HEALTHY

        with CleanroomEnvironment().register(Hand("db")).register(Hand("bad")) as env:
            env.start("db")
            try:
                env.start("bad")
            except ConfigurationError as error:
                print(error)
    """
    assert site.run(code).splitlines() == [
        "observed db",
        "service 'bad': not on my watch (says strict-box 1.0: strict)",
    ]
    assert site.run(code, CLEANROOM_DISABLE_PLUGINS="strict,watch-box") == ""


def test_broken_hooks_are_remembered_and_break_no_others(site: Site) -> None:
    """What fails to import, or implements hooks that do not exist or fit, is reported only."""
    good = """
        from cleanroom.hooks import hookimpl

        @hookimpl
        def cleanroom_fixture_modules():
            return "good.fixtures"
    """
    typo = """
        from cleanroom.hooks import hookimpl

        @hookimpl
        def cleanroom_fixture_modules():
            return "typo.fixtures"

        @hookimpl
        def cleanroom_service_startde(handle): ...
    """
    argument = """
        from cleanroom.hooks import hookimpl

        @hookimpl
        def cleanroom_service_started(handel): ...
    """
    site.install(
        "a-broken", version="3", hooks={"a": "a_hooks"}, modules={"a_hooks": "import nope"}
    )
    site.install("b-exit", hooks={"b": "b_hooks"}, modules={"b_hooks": "raise SystemExit(3)"})
    site.install("c-typo", hooks={"c": "c_hooks"}, modules={"c_hooks": typo})
    site.install("d-argument", hooks={"d": "d_hooks"}, modules={"d_hooks": argument})
    site.install("good", hooks={"a": "good_hooks"}, modules={"good_hooks": good})
    code = """
        from cleanroom import discovery, hooks
        ours = {"good.fixtures", "typo.fixtures"}
        print([name for name in hooks.fixture_modules() if name in ours])
        for error in discovery.problems():
            print(str(error).replace(chr(10), " "))
    """
    modules, broken, exited, typed, argued = site.run(code).splitlines()[:5]
    assert modules == "['good.fixtures']"
    assert "failed to load: ModuleNotFoundError" in broken
    assert "a-broken 3" in broken
    assert "SystemExit: 3" in exited
    assert "cleanroom_service_startde" in typed
    assert "handel" in argued
