"""The pytest plugin. It is loaded in every run, so it imports and starts nothing by itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cleanroom_runtime import _sessions
from cleanroom_runtime.fixtures import FAILED, REPLACED, SERVICES, UNSHARED, USES_SERVICES

if TYPE_CHECKING:
    from cleanroom_runtime._pytest_progress import PullProgress
    from cleanroom_runtime._run import Run

_WORKER_INPUT = "cleanroom_run"
_WORKER_NOTE = "cleanroom_note"
_WORKER_OUTPUT = "cleanroom_unshared"
_WORKER_REPLACED = "cleanroom_replaced"
_LOG_LINES = 20
_SERVICES_FIXTURE = "cleanroom_services"
_IDENTITY: pytest.StashKey[tuple[str, int]] = pytest.StashKey()
_JOIN: pytest.StashKey[Callable[[], None]] = pytest.StashKey()
_NOTE: pytest.StashKey[Path | None] = pytest.StashKey()
_AHEAD: pytest.StashKey[bool] = pytest.StashKey()
_RUN: pytest.StashKey[Run] = pytest.StashKey()
_ENDING: pytest.StashKey[Callable[[], bool]] = pytest.StashKey()
_PREVIOUS: pytest.StashKey[Run | None] = pytest.StashKey()
_PROGRESS: pytest.StashKey[PullProgress] = pytest.StashKey()
_PROBLEMS: pytest.StashKey[list[str]] = pytest.StashKey()
_OF_WORKERS: pytest.StashKey[dict[str, list[str]]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("cleanroom", "real services for tests")
    group.addoption(
        "--cleanroom-keep",
        action="store_true",
        help="keep what failed tests had in their databases, with the servers, and print where",
    )
    group.addoption(
        "--cleanroom-fresh",
        action="store_true",
        help="make anew what earlier runs have left in the cache, such as migrated templates",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures of all installed plugins; one that is broken only breaks its own."""
    from cleanroom import hooks

    if config.option.cleanroom_fresh:
        from cleanroom_runtime._caches import FRESH_VARIABLE

        environment = pytest.MonkeyPatch()
        environment.setenv(FRESH_VARIABLE, "1")
        config.add_cleanup(environment.undo)
    problems = config.stash[_PROBLEMS] = []
    for module in ("cleanroom_runtime.fixtures", *hooks.fixture_modules()):
        try:
            config.pluginmanager.import_plugin(module)
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever a plugin does
            cause = exc.__cause__ or exc  # pytest wraps what an import raises
            problems.append(
                f"the fixtures in {module} cannot be used: {type(cause).__name__}: {cause}"
            )
            if config.pluginmanager.has_plugin(module):
                config.pluginmanager.unregister(name=module)
    problems += _problems_of_plugins()


def _problems_of_plugins() -> Iterator[str]:
    from cleanroom import discovery

    for error in discovery.problems():
        yield str(error)
    for entry in discovery.installed("cleanroom.hooks"):
        if entry.disabled:
            yield f"CLEANROOM_DISABLE_PLUGINS switches off {entry.name} of {entry.distribution}"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker which run it belongs to."""
    address = _session_run(node.config).address
    node.workerinput[_WORKER_INPUT] = [address.run_id, address.root, address.owner]
    node.workerinput[_WORKER_NOTE] = str(node.config.stash[_NOTE] or "")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Note what an xdist worker had for itself, and what was replaced there."""
    output = getattr(node, "workeroutput", {})
    if told := output.get(_WORKER_OUTPUT):
        node.config.stash.setdefault(_OF_WORKERS, {})[str(node.gateway.id)] = told
    node.config.stash.setdefault(REPLACED, []).extend(output.get(_WORKER_REPLACED, ()))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Take part in the run of this session, from the first service on."""
    join: Callable[[], None] = partial(_join, session.config)
    session.config.stash[_IDENTITY] = (f"r{os.urandom(4).hex()}", os.getpid())
    session.config.stash[_NOTE] = _note(session.config)
    session.config.stash[_JOIN] = join
    _sessions.under_way.append(join)
    if "cleanroom_runtime._run" in sys.modules:
        join()


def _note(config: pytest.Config) -> Path | None:
    """Where the last run of the same tests has left its note."""
    told = getattr(config, "workerinput", None)
    if told is not None:
        return Path(told[_WORKER_NOTE]) if told.get(_WORKER_NOTE) else None
    from cleanroom_runtime._caches import note_of

    return note_of(config)


def _join(config: pytest.Config) -> None:
    """Take part in the run of this session: its own, or the one of the controller."""
    from cleanroom_runtime._folders import run_root
    from cleanroom_runtime._pytest_progress import PullProgress
    from cleanroom_runtime._run import RunAddress, join_run, joined_run

    told = getattr(config, "workerinput", {}).get(_WORKER_INPUT)
    run_id, owner = config.stash[_IDENTITY]  # the same in all children that fork
    address = RunAddress(*told) if told else RunAddress(run_id, str(run_root()), owner)
    config.stash[_PREVIOUS] = joined_run()
    config.stash[_RUN] = join_run(address, config.stash.get(_NOTE, None))
    if _PROGRESS not in config.stash:  # else `_run` was imported once more
        config.stash[_PROGRESS] = PullProgress(config)
        config.stash[_PROGRESS].begin()


def _session_run(config: pytest.Config) -> Run:
    """The run of this session. Nothing is started."""
    import_module("cleanroom_runtime._run")  # which has this session join it
    return config.stash[_RUN]


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name what could not be loaded; and where workers collect, the declared services."""
    lines = [f"cleanroom: {problem}" for problem in config.stash.get(_PROBLEMS, [])]
    if config.pluginmanager.has_plugin("dsession"):
        from cleanroom_runtime._pytest_report import expected

        lines += expected(config, None)
    return lines


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Launch what the last run has launched, while tests are collected."""
    config = session.config
    note = config.stash.get(_NOTE, None)
    if note is None or hasattr(config, "workerinput") or not os.path.exists(note):
        return  # or it cannot be read, as in somebody else's home
    if _starts_nothing(config) or config.option.cleanroom_fresh:
        return
    with suppress(Exception):  # which the first test that asks for a service will meet
        run = _session_run(config)
        from cleanroom_runtime._ahead import launch_again

        launch_again(run)
        config.stash[_AHEAD] = True


def _starts_nothing(config: pytest.Config) -> bool:
    """Whether no test will be run."""
    return config.option.collectonly or getattr(config.option, "setupplan", False)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the run's warden where tests ask for services: it is up when the first does."""
    config = session.config
    in_vain = session.testsfailed and not config.option.continue_on_collection_errors
    if in_vain or _starts_nothing(config):
        return
    if any(_SERVICES_FIXTURE in getattr(item, "fixturenames", ()) for item in session.items):
        from cleanroom import CleanroomError

        with suppress(CleanroomError):  # which the first test that asks for a service will meet
            _session_run(config).wake()


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """Name the services that the tests ask for, and how each will run."""
    asked = {name for item in items for name in getattr(item, "fixturenames", ())}
    if _SERVICES_FIXTURE not in asked or config.get_verbosity() < 0:
        return []
    from cleanroom_runtime._pytest_report import expected

    return expected(config, asked)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Make clean what the services of this worker share with the test."""
    services = item.config.stash.get(SERVICES, None)
    if services is not None and _uses_services(item):
        services.slices.begin_test()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Let go of it, after the fixtures did."""
    services = item.config.stash.get(SERVICES, None)
    if services is not None:
        services.slices.end_test()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note that a test failed, and add what its services wrote to the report."""
    report = yield
    if report.failed:
        for node in item.listchain():
            node.stash[FAILED] = True
        services = item.config.stash.get(SERVICES, None)
        if services is not None and _uses_services(item):
            for name, text in services.log_tails(_LOG_LINES):
                report.sections.append((f"cleanroom: log of {name}", text))
        problems = item.config.stash.get(_PROBLEMS, [])
        if problems and call.excinfo and call.excinfo.errisinstance(pytest.FixtureLookupError):
            report.sections.append(("cleanroom: what could not be loaded", "\n".join(problems)))
    return report


def _uses_services(item: pytest.Item) -> bool:
    """Whether it asked for a service: in its arguments, or when it ran."""
    asked = _SERVICES_FIXTURE in getattr(item, "fixturenames", ())
    return asked or item.stash.get(USES_SERVICES, False)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the controller what it notes of this worker: fixtures are torn down by now."""
    config = session.config
    output = getattr(config, "workeroutput", None)
    if output is not None:
        output[_WORKER_OUTPUT] = config.stash.get(UNSHARED, [])
        output[_WORKER_REPLACED] = config.stash.get(REPLACED, [])
    elif _AHEAD in config.stash and not (session.shouldstop or session.shouldfail):
        _forget_unused(config, session.exitstatus)


def _forget_unused(config: pytest.Config, status: int) -> None:
    """Have the next run launch nothing ahead that no test of a whole run has asked for."""
    from cleanroom import CleanroomError
    from cleanroom_runtime._ahead import forget_others
    from cleanroom_runtime._shared import PREFIX

    code = pytest.ExitCode
    if status not in (code.OK, code.TESTS_FAILED, code.NO_TESTS_COLLECTED):
        return
    run = config.stash[_RUN]
    with suppress(CleanroomError):  # the warden is gone, and with it what it knew
        forget_others(run, {key.removeprefix(PREFIX) for key in run.outcomes(PREFIX)})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was started, how, how long it took, and what making it clean has cost."""
    if hasattr(terminalreporter.config, "workerinput"):
        return  # The controller says it for all.
    stash = terminalreporter.config.stash
    of_workers: dict[str, list[str]] = stash.get(_OF_WORKERS, {})
    unshared = {**of_workers, "": stash.get(UNSHARED, [])}
    replaced = stash.get(REPLACED, [])
    run = stash.get(_RUN, None)
    if not replaced and not any(unshared.values()) and (run is None or run.over()):
        return
    from cleanroom_runtime._pytest_report import summary

    lines = list(summary(run, unshared, replaced))
    if lines:
        terminalreporter.section("cleanroom", sep="-")
        for line in lines:
            terminalreporter.line(line)
    if run is not None:  # It ends while pytest does.
        stash[_ENDING] = run.begin_to_shut_down(hasty=True)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End the run, unless this is one of several workers of it."""
    if _JOIN in config.stash:
        _sessions.under_way.remove(config.stash[_JOIN])
    run = config.stash.get(_RUN, None)
    if run is None:
        return
    from cleanroom_runtime._run import leave_run

    config.stash[_PROGRESS].end()
    if hasattr(config, "workerinput"):
        run.disconnect()
    else:
        ending = config.stash.get(_ENDING, None) or run.begin_to_shut_down(hasty=True)
        ending()
    leave_run(config.stash[_PREVIOUS])
