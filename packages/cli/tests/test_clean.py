"""`cleanroom clean`: dead runs and kept ones."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cleanroom_runtime import _line, _runs
from cleanroom_runtime._run import Run, RunAddress
from cleanroom_runtime._warden._processes import children_of
from tests.leftovers import gone_within, is_running, until, warden_of

if TYPE_CHECKING:
    from conftest import Cli

NewRun = Callable[..., Run]


@pytest.fixture
def new_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[NewRun]:
    """Begins runs in a folder of their own, the only one that the command looks at."""
    with tempfile.TemporaryDirectory(prefix="c-", dir="/tmp") as folder:
        root = Path(folder, "runs")
        for module in (_runs, _line):  # nor do the runs look at others
            monkeypatch.setattr(module, "run_roots", lambda: iter([root]))
        runs: list[Run] = []

        def new(owner: int | None = None) -> Run:
            address = RunAddress(f"r{secrets.token_hex(4)}", str(root), owner or os.getpid())
            runs.append(Run(address))
            runs[-1].request("register", directory=str(Path(folder, "data")))
            return runs[-1]

        yield new
        for run in runs:
            run.shut_down(kept_too=True)
            gone_within(30, run.id)


def kill_warden(run: Run) -> None:
    """Kill it when what it has started to look for dead runs is through, which would find this."""
    pid = warden_of(run.id)
    run.request("kept")  # it answers the second request after it has started that
    until(lambda: not any(map(is_running, children_of(pid))))
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_running(pid))
    run.disconnect()


def test_nothing_to_clean_up(cli: Cli, new_run: NewRun) -> None:
    """Runs that are alive are named and left alone."""
    run = new_run()
    said = cli("clean")
    assert said.code == 0
    assert f"Alive, and left alone: {run.id}.\nThere is nothing to clean up.\n" in said.out
    assert cli("clean", "--dry-run").out == said.out
    assert run.alive()


def test_a_dead_run(cli: Cli, new_run: NewRun) -> None:
    """What a dead run left is listed and removed; with `--dry-run` it is only listed."""
    run = new_run()
    left = Path(run.address.root).parent / "data"
    left.mkdir()
    kill_warden(run)
    listed = f"Run {run.id} is dead. It left:\n  folder {left}\n  folder {run.address.directory}\n"
    said = cli("clean", "--dry-run")
    assert (said.code, said.out) == (0, listed)
    assert left.exists()
    said = cli("clean")
    assert (said.code, said.out) == (0, f"{listed}Removed what 1 run left.\n")
    assert not left.exists()
    assert not run.address.directory.exists()


def test_what_cannot_be_removed(cli: Cli, new_run: NewRun) -> None:
    """Where a clean-up does not get through, the reason is said, and the exit code is 1."""
    run = new_run()
    helper = {"argv": [sys.executable, "-c", "raise SystemExit(4)"]}
    run.request("register", helper=helper)
    kill_warden(run)
    said = cli("clean")
    assert said.code == 1
    assert f"Run {run.id} could not be cleaned up after completely:\n" in said.err
    assert "a helper failed: CalledProcessError" in said.err


def test_a_kept_run(cli: Cli, new_run: NewRun) -> None:
    """A run that was kept stays, and is ended by `--kept`, when its session is over."""
    with subprocess.Popen(["sleep", "60"]) as session:
        run = new_run(session.pid)
        run.request("keep", note="test_it: redis://:sesame@here")
        assert f"Alive, and left alone: {run.id}.\n" in cli("clean", "--kept").out
        session.kill()
    until(lambda: run.request("kept")["over"])
    said = cli("clean")
    assert said.code == 0
    assert f"Run {run.id} was kept, with:\n  test_it: redis://:***@here\n" in said.out
    assert "cleanroom clean --kept ends them" in said.out
    assert run.alive()
    run.disconnect()
    said = cli("clean", "--kept")
    assert (said.code, said.out.splitlines()[-1]) == (0, f"Ended run {run.id}.")
    gone_within(30, run.id)
