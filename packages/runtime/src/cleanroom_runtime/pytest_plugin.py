"""The pytest plugin. It is loaded in every run, so it imports and starts nothing by itself."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from cleanroom_runtime.fixtures import FAILED, SERVICES

if TYPE_CHECKING:
    from cleanroom_runtime._run import Run

_WORKER_INPUT = "cleanroom_run"
_LOG_LINES = 20
_RUN = pytest.StashKey["Run"]()
_PREVIOUS = pytest.StashKey["Run | None"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("cleanroom", "real services for tests")
    group.addoption(
        "--cleanroom-keep",
        action="store_true",
        help="keep what failed tests had in their databases, with the servers, and print where",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures of all installed plugins; one that is broken only breaks its own."""
    from cleanroom import hooks

    for module in ("cleanroom_runtime.fixtures", *hooks.fixture_modules()):
        try:
            config.pluginmanager.import_plugin(module)
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever a plugin does
            config.issue_config_time_warning(
                pytest.PytestWarning(
                    f"cleanroom: the fixtures in {module} cannot be used: {exc!r}"
                ),
                stacklevel=2,
            )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker which run it belongs to."""
    address = _session_run(node.config).address
    node.workerinput[_WORKER_INPUT] = [address.run_id, address.root, address.owner]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Take part in the run of this session, from the first service on."""
    _session_run(session.config)


def _session_run(config: pytest.Config) -> Run:
    """The run of this session: its own, or the one of the controller. Nothing is started."""
    if _RUN not in config.stash:
        from cleanroom_runtime import _run

        told = getattr(config, "workerinput", {}).get(_WORKER_INPUT)
        address = _run.RunAddress(*told) if told else _run.RunAddress.new()
        config.stash[_PREVIOUS] = _run.joined_run()
        config.stash[_RUN] = _run.join_run(address)
    return config.stash[_RUN]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note that a test failed, and add what its services wrote to the report."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
        services = item.config.stash.get(SERVICES, None)
        for name, text in services.log_tails(_LOG_LINES) if services else ():
            report.sections.append((f"cleanroom: log of {name}", text))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was started, how, and how long it took."""
    run = terminalreporter.config.stash.get(_RUN, None)
    if run is None or not run.alive():
        return
    lines = list(_summary(run))
    if lines:
        terminalreporter.section("cleanroom", sep="-")
        for line in lines:
            terminalreporter.line(line)


def _summary(run: Run) -> Iterator[str]:
    from cleanroom_runtime._shared import PREFIX, read_started

    for key, outcome in run.outcomes(PREFIX).items():
        if "value" in outcome:
            started = read_started(outcome["value"])
            facts = started.handle.metadata
            yield (
                f"{key.removeprefix(PREFIX)}: {facts['backend']}, version {facts['version']}, "
                f"ready in {started.seconds:.2f} s ({facts['backend_reason']})"
            )
    notes = run.request("kept")["notes"]
    for note in notes:
        yield f"kept: {note}"
    if notes:
        yield f"end it with: python -m cleanroom_runtime stop {run.id}"


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the run, unless this is one of several workers of it."""
    run = config.stash.get(_RUN, None)
    if run is None:
        return
    from cleanroom_runtime import _run

    if hasattr(config, "workerinput"):
        run.disconnect()
    else:
        run.shut_down()
    _run.leave_run(config.stash[_PREVIOUS])
