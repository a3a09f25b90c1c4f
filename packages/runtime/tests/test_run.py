"""A process's part in a run: joining, losing and ending it, from any process."""

from __future__ import annotations

import json
import multiprocessing
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cleanroom import ConfigurationError, InternalError, ServiceError, ValidationError
from cleanroom_runtime import _folders, _line
from cleanroom_runtime import _run as runs
from cleanroom_runtime._folders import memory_folder, run_root, run_roots
from cleanroom_runtime._run import Run, RunAddress, current_run, join_run, leave_run, run_of
from tests.leftovers import gone_within, is_running, until, warden_of

BOUND = 5.0


@pytest.fixture(autouse=True)
def _no_current_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test begin in no run, as a plain script does."""
    monkeypatch.setattr(runs, "_current", None)
    monkeypatch.setattr(runs, "_others", {})


@pytest.fixture
def short_run(short_folder: Path) -> Iterator[Run]:
    """A run in a folder of its own."""
    address = RunAddress(f"r{secrets.token_hex(4)}", str(short_folder / "runs"), os.getpid())
    run = Run(address)
    yield run
    run.shut_down()
    until(lambda: not address.directory.exists())


def kill_warden(run: Run) -> None:
    pid = warden_of(run.id)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_running(pid))


# ------------------------------------------------------------------ beginning and ending


def test_a_run_begins_with_its_first_request() -> None:
    """Nothing is made until something is asked for, and nothing is left when the run has ended."""
    run = current_run()
    assert not run.alive()
    assert run.over()
    assert not run.address.directory.exists()
    run.request("register")
    assert run.alive()
    assert not run.over()
    assert run.address.directory.stat().st_mode & 0o777 == 0o700
    assert not run.shut_down()
    gone_within(BOUND, run.id)
    assert run.over()
    assert current_run() is run


def test_no_two_services_have_one_id() -> None:
    """However many services a run starts, none has the id of another, nor so its folder."""
    run = current_run()
    ids = {run.new_service_id() for _ in range(100_000)}
    assert len(ids) == 100_000
    assert {len(each) for each in ids} == {len(f"{run.id}-s01234")}


def test_a_run_may_begin_again() -> None:
    """After its end a run begins anew when something is asked for, even while the old one ends."""
    run = current_run()
    for _ in range(3):
        run.request("register")
        run.shut_down()
    gone_within(BOUND, run.id)


def test_one_warden_for_all_who_start_it_at_once() -> None:
    """When many begin a run at the same time, it gets one warden."""
    address = RunAddress.new()
    runs = [Run(address) for _ in range(8)]
    threads = [threading.Thread(target=run.request, args=("register",)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    warden_of(address.run_id)  # raises unless there is exactly one
    for run in runs[1:]:
        run.disconnect()
    runs[0].shut_down()


def test_requests_of_many_threads(run: Run) -> None:
    """Threads share a run without getting each other's answers."""

    def lease() -> None:
        found.append(int(run.request("lease", pool="p", size=50)["index"]))

    found: list[int] = []
    threads = [threading.Thread(target=lease) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(50))


def test_a_forked_child_speaks_for_itself(run: Run) -> None:
    """A forked child uses no connection of its parent's, and its end is not its parent's."""
    run.request("lease", pool="p", size=2)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(
        target=lambda: answers.put(run.request("lease", pool="p", size=2)["index"])
    )
    child.start()
    child.join(30)
    assert answers.get() == 1
    assert run.request("lease", pool="p", size=2)["index"] == 1
    assert run.request("kept")["notes"] == []


def test_once_passes_errors_on(run: Run) -> None:
    """An error of our tree reaches all who wanted the same thing, with what it says."""
    calls = []

    def fail() -> str:
        calls.append(1)
        raise ValidationError("is wrong", hint="put it right")

    for _ in range(2):
        with pytest.raises(ValidationError, match="is wrong") as caught:
            run.once("key", fail)
        assert caught.value.hint == "put it right"
    assert len(calls) == 1


def test_once_after_another_error(run: Run) -> None:
    """Another error leaves it to the next one."""
    with pytest.raises(KeyboardInterrupt):
        run.once("key", _interrupt)
    assert run.once("key", lambda: "value") == "value"
    assert run.once("key", _interrupt) == "value"


def _interrupt() -> str:
    raise KeyboardInterrupt


def test_an_interrupted_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C in a request nobody gets its answer, and a claim by it is passed on."""
    run.request("register")
    finish = run.begin("claim", key="key")
    with monkeypatch.context() as patch:
        patch.setattr(_line.Line, "receive", lambda _line: _interrupt())
        with pytest.raises(KeyboardInterrupt):
            finish()
    assert run.request("kept") == {"ok": True, "notes": [], "over": False}
    assert run.request("claim", key="key")["granted"]


# ------------------------------------------------------------------------ a killed warden


def test_a_killed_warden_is_named(short_run: Run) -> None:
    """Every request to a run whose warden was killed says so, and where its log is."""
    short_run.request("register")
    log = short_run.address.directory / "warden.log"
    kill_warden(short_run)
    assert not short_run.alive()
    assert not short_run.over()
    for _ in range(2):
        with pytest.raises(
            InternalError, match=f"the warden of run {short_run.id} is gone"
        ) as error:
            short_run.request("kept")
        assert str(log) in str(error.value.hint)
    assert not short_run.shut_down()
    short_run.request("register")  # so that the run is removed


def test_a_plain_script_begins_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in a run of its own takes a new one when that is lost; one that joined does not."""
    run = current_run()
    run.request("register")
    kill_warden(run)
    with pytest.raises(InternalError):
        run.request("kept")
    new = current_run()
    assert new.id != run.id
    joined = join_run(RunAddress.new())
    try:
        joined.request("register")
        kill_warden(joined)
        with pytest.raises(InternalError):
            joined.request("kept")
        assert current_run() is joined
    finally:
        leave_run(new)
    new.request("register")
    kill_warden(new)
    with pytest.raises(InternalError):
        new.request("kept")
    last = current_run()
    assert last.id not in (run.id, joined.id, new.id)
    last.request("register", directory="/nonexistent")  # sweeps
    for lost in (run, joined, new):
        gone_within(BOUND, lost.id)
    last.shut_down()


def test_a_warden_that_fails_to_start(short_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warden that does not come up is an error, and its log says why."""
    monkeypatch.setattr(_line, "_WARDEN", "raise SystemExit('no luck')")
    with pytest.raises(InternalError, match="is gone") as caught:
        short_run.request("register")
    log = short_run.address.directory / "warden.log"
    assert str(log) in str(caught.value.hint)
    until(lambda: "no luck" in log.read_text())
    assert not short_run.alive()
    monkeypatch.undo()
    short_run.disconnect()
    short_run.request("register")  # so that the run is removed


def test_a_warden_that_fails_before_it_is_greeted(
    short_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the same error when the warden is gone before the first word to it was said."""
    monkeypatch.setattr(_line, "_WARDEN", "raise SystemExit('no luck')")
    line = _line.Line

    def wait_then_open(sock: socket.socket, starter: subprocess.Popen[bytes]) -> _line.Line:
        starter.wait()
        return line(sock, starter)

    monkeypatch.setattr(_line, "Line", wait_then_open)
    monkeypatch.setattr(wait_then_open, "connect", line.connect, raising=False)
    with pytest.raises(InternalError, match="is gone"):
        short_run.request("register")
    monkeypatch.undo()
    short_run.disconnect()
    short_run.request("register")  # so that the run is removed


# -------------------------------------------------------------------- from other processes


OTHER = """
import json, sys
from cleanroom_runtime._run import run_of
run = run_of(sys.argv[1])
print(json.dumps([run.alive(), run.request("kept")["notes"], run.shut_down(kept_too=True)]))
"""


@pytest.mark.parametrize("folder", [None, "/var/tmp"])
def test_a_run_is_found_by_the_id_of_a_service(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch, folder: str | None
) -> None:
    """Another process finds the run of a service; of one in /tmp, whatever its own TMPDIR is."""
    monkeypatch.setattr(tempfile, "tempdir", "/tmp" if folder else str(short_folder))
    monkeypatch.setenv("TMPDIR", str(short_folder))
    run = Run(RunAddress.new())
    try:
        run.request("keep", note="a note")
        environment = {**os.environ, **({"TMPDIR": folder} if folder else {})}
        answer = subprocess.run(
            [sys.executable, "-W", "error", "-c", OTHER, run.new_service_id()],
            capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        assert answer.stderr == ""
        assert json.loads(answer.stdout) == [True, ["a note"], False]
    finally:
        run.shut_down(kept_too=True)
    gone_within(BOUND, run.id)


def test_run_of() -> None:
    """The run of a service is the current one, or one that is only looked up, and starts none."""
    run = current_run()
    assert run_of(run.new_service_id()) is run
    other = run_of("r01234567-s1")
    assert other is run_of("r01234567-s2")
    assert other.over()
    with pytest.raises(InternalError, match="is gone"):
        other.request("kept")
    assert not other.address.directory.exists()


# ------------------------------------------------------------------------------- folders


def test_a_folder_with_a_long_path_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where TMPDIR is too long for sockets in it, runs are in /tmp."""
    folder = tmp_path / ("x" * 150)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert run_root() == Path(f"/tmp/cleanroom-{os.getuid()}")


def test_a_short_folder_is_used(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are in TMPDIR where its path is short."""
    monkeypatch.setattr(tempfile, "tempdir", str(short_folder))
    assert run_root() == short_folder / f"cleanroom-{os.getuid()}"
    assert run_root() == next(run_roots())


def test_a_folder_that_does_not_suit(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that does not suit is passed over; where none does, the error says what helps."""
    monkeypatch.setattr(tempfile, "tempdir", str(short_folder))
    assert run_root(suits=lambda folder: folder != short_folder).parent == Path("/tmp")
    with pytest.raises(ConfigurationError, match="no folder for unix sockets") as caught:
        run_root(suits=lambda _folder: False)
    assert "TMPDIR" in str(caught.value.hint)


@pytest.mark.parametrize("trouble", ["open to others", "a link"])
def test_a_folder_that_is_not_private(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """A folder for runs that others may write to, or have put there, is refused."""
    monkeypatch.setattr(tempfile, "tempdir", str(short_folder))
    root = short_folder / f"cleanroom-{os.getuid()}"
    if trouble == "a link":
        (short_folder / "elsewhere").mkdir(mode=0o700)
        root.symlink_to(short_folder / "elsewhere")
    else:
        root.mkdir(mode=0o777)
        root.chmod(0o777)
    with pytest.raises(ConfigurationError, match="not a private folder") as caught:
        current_run().request("register")
    assert str(root) in caught.value.message
    assert "remove it" in str(caught.value.hint)


def test_a_folder_that_cannot_be_written(short_folder: Path) -> None:
    """Where the run's directory cannot be made, the error says so and what helps."""
    (short_folder / "runs").touch()
    run = Run(RunAddress("r0000000e", str(short_folder / "runs" / "below"), os.getpid()))
    with pytest.raises(ServiceError, match="could not be made") as caught:
        run.request("register")
    assert "TMPDIR" in str(caught.value.hint)


def group(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)


@pytest.mark.parametrize("version", [1, 2])
def test_memory_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """Memory is only used as far as limits of this control group, and those above it, allow."""
    megabyte = 1024 * 1024
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }
    limit, usage, inactive = names[version]
    top = tmp_path / "memory" if version == 1 else tmp_path
    statistics = f"anon 1\n{inactive} {50 * megabyte}\n"
    group(top, {limit: str(300 * megabyte), usage: str(200 * megabyte), "memory.stat": statistics})
    group(top / "a" / "b", {"memory.max": "max", limit: str(10**15)})
    own = tmp_path / "own"
    own.write_text("3:cpu,cpuacct:/elsewhere\n" + {1: "2:memory:/a/b\n", 2: "0::/a/b\n"}[version])
    monkeypatch.setattr(_folders, "_OWN_GROUPS", own)
    monkeypatch.setattr(_folders, "_GROUPS", tmp_path)
    monkeypatch.setattr(_folders, "_MEMORY_FOLDER", tmp_path)  # on a disk with room
    assert memory_folder(140 * megabyte) == tmp_path
    assert memory_folder(160 * megabyte) is None


def test_memory_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder in memory, or room in it, none is used."""
    monkeypatch.setattr(_folders, "_MEMORY_FOLDER", tmp_path / "nowhere")
    assert memory_folder(1) is None
    monkeypatch.setattr(_folders, "_MEMORY_FOLDER", tmp_path)
    assert memory_folder(2**60) is None
