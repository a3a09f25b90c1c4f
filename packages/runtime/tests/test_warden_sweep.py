"""What a killed warden leaves: told from what is alive by lock and owner, and removed."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cleanroom import InternalError
from cleanroom_runtime._engine import Engine
from cleanroom_runtime._run import Run, RunAddress
from cleanroom_runtime._warden import _clean, _processes
from cleanroom_runtime._warden._journal import Journal, read_records
from tests.leftovers import (
    gone_within,
    is_running,
    left_of,
    segments,
    services_of,
    until,
    warden_of,
)

BOUND = 5.0


@pytest.fixture
def new_run(short_folder: Path) -> Iterator[Callable[[], Run]]:
    """Begins runs in a folder of their own, where no others sweep."""
    runs: list[Run] = []

    def new() -> Run:
        root = str(short_folder / "runs")
        runs.append(Run(RunAddress(f"r{secrets.token_hex(4)}", root, os.getpid())))
        runs[-1].request("register")
        return runs[-1]

    yield new
    for run in runs:
        run.shut_down()
    until(lambda: not (short_folder / "runs").exists())


def spawn(run: Run, script: str, **options: Any) -> tuple[str, int]:
    """Start a process service; return its id and pid."""
    service_id = run.new_service_id()
    request = {
        "argv": [sys.executable, "-I", "-S", "-c", textwrap.dedent(script)],
        "env": dict(os.environ),
        "cwd": "/",
        "log": str(run.address.directory / f"{service_id}.log"),
        "directories": [],
        "stop_signal": "SIGTERM",
        "stop_timeout": 5.0,
    }
    return service_id, int(run.request("spawn", id=service_id, **{**request, **options})["pid"])


def kill_warden(run: Run) -> None:
    pid = warden_of(run.id)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_running(pid))


def said(run: Run, service_id: str, word: str) -> None:
    until(lambda: word in (run.address.directory / f"{service_id}.log").read_text())


SLEEPS = "import signal; signal.pause()"

HAS_DAEMON = """
    import os, signal
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            print("ready", flush=True)
            signal.pause()
        os._exit(0)
    os.wait()
    signal.pause()
"""

HAS_SEGMENT = """
    import ctypes, os, signal
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    shmid = libc.shmget(0, 4096, 0o1600)
    libc.shmat(shmid, None, 0)
    print("segment", shmid, flush=True)
    signal.pause()
"""

SHARES_SEGMENT = HAS_SEGMENT.replace("print(", "if os.fork():\n        print(")


def segment_of(run: Run, service_id: str) -> str:
    said(run, service_id, "\n")
    return (run.address.directory / f"{service_id}.log").read_text().split()[1]


def test_the_next_run_sweeps(new_run: Callable[[], Run], short_folder: Path) -> None:
    """Processes, what they have detached, their memory and directories go with the next run."""
    run = new_run()
    data = short_folder / "data"
    _, plain = spawn(run, SLEEPS, directories=[str(data)])
    daemon, _ = spawn(run, HAS_DAEMON)
    memory, _ = spawn(run, SHARES_SEGMENT)
    said(run, daemon, "ready")
    segment = segment_of(run, memory)
    kill_warden(run)
    assert is_running(plain)
    assert len(services_of(run.id)) == 5
    with pytest.raises(InternalError, match=f"the warden of run {run.id} is gone"):
        run.request("status", id=daemon)
    other = new_run()
    _, alive = spawn(other, SLEEPS)
    gone_within(BOUND, run.id)
    until(lambda: not run.address.directory.exists(), BOUND)
    assert not data.exists()
    assert segment not in segments()
    assert is_running(alive)


@pytest.mark.parametrize("script", [HAS_SEGMENT, SHARES_SEGMENT])
def test_shared_memory_of_a_killed_process(new_run: Callable[[], Run], script: str) -> None:
    """A process that is killed leaves no shared memory, even where a child of it has it too."""
    run = new_run()
    service_id, pid = spawn(run, script)
    segment = segment_of(run, service_id)
    assert segment in segments()
    os.kill(pid, signal.SIGKILL)
    run.request("wait", id=service_id)
    until(lambda: not run.request("status", id=service_id)["running"])
    run.request("stop", id=service_id)
    run.shut_down()
    until(lambda: segment not in segments(), BOUND)


def test_shared_memory_of_others_stays() -> None:
    """A segment that a process of the same pid has made long before is none of ours."""
    script = "import ctypes; print(ctypes.CDLL(None).shmget(0, 4096, 0o1600))"
    maker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    segment = maker.communicate()[0].strip()
    row = next(
        line.split()
        for line in Path("/proc/sysvipc/shm").read_text().splitlines()
        if line.split()[1] == segment
    )
    made = int(row[13])
    _processes.remove_shared_memory(maker.pid, since=made + 60)
    assert segment in segments()
    _processes.remove_shared_memory(maker.pid, since=made)
    assert segment not in segments()


def test_a_living_run_is_not_swept(new_run: Callable[[], Run]) -> None:
    """A run is left alone that has a warden, or is about to start one."""
    alive, starting = new_run(), new_run()
    _, pid = spawn(alive, SLEEPS)
    kill_warden(starting)
    with (starting.address.directory / "start.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _clean.sweep([alive.address.root])
        assert starting.address.directory.exists()
    assert is_running(pid)
    assert alive.request("kept")["notes"] == []
    _clean.sweep([alive.address.root])
    assert not starting.address.directory.exists()
    assert alive.address.directory.exists()


def test_a_process_with_a_pid_of_old(short_folder: Path) -> None:
    """A process that has the pid of one in the journal, and is another one, is left alone."""
    directory = short_folder / "runs" / "r0000000a"
    directory.mkdir(parents=True, mode=0o700)
    with subprocess.Popen([sys.executable, "-c", SLEEPS]) as innocent:
        record = {"pid": innocent.pid, "signal": "SIGKILL", "time": 0.0}
        Journal(str(directory / "journal")).add({**record, "identity": "another boot 1234"})
        _clean.sweep([str(directory.parent)])
        assert innocent.poll() is None
        innocent.kill()
    assert not directory.exists()


def test_identity_without_proc() -> None:
    """Where there is no /proc, `ps` tells one process from another."""
    with subprocess.Popen([sys.executable, "-c", SLEEPS]) as process:
        identity = _processes._identity_by_ps(process.pid)
        assert identity
        assert _processes._identity_by_ps(process.pid) == identity
        process.kill()
    assert _processes._identity_by_ps(process.pid) == ""


def test_a_run_directory_without_a_journal(short_folder: Path) -> None:
    """A run that never got to start its warden is removed."""
    directory = short_folder / "runs" / "r0000000b"
    directory.mkdir(parents=True, mode=0o700)
    _clean.sweep([str(directory.parent)])
    assert not directory.parent.exists()


def test_a_journal_cut_short(short_folder: Path) -> None:
    """A journal that a crash or a full disk has cut short is read as far as it goes."""
    path = short_folder / "journal"
    path.write_bytes(b'\n{"directory": "/a"}\n\n{"direc')
    journal = Journal(str(path))
    journal.add({"directory": "/b"})
    assert read_records(str(path)) == [{"directory": "/a"}, {"directory": "/b"}]


def test_another_warden_of_the_same_run(new_run: Callable[[], Run]) -> None:
    """A process that joins a run whose warden was killed first ends what that has left."""
    run = new_run()
    _, old = spawn(run, SLEEPS)
    kill_warden(run)
    other = Run(run.address)
    _, new = spawn(other, SLEEPS)
    assert not is_running(old)
    assert is_running(new)
    other.shut_down()
    gone_within(BOUND, run.id)


def test_a_run_does_not_stay_to_sweep(new_run: Callable[[], Run], short_folder: Path) -> None:
    """A run ends in time, whatever is left to do about earlier ones; the next run goes on."""
    run = new_run()
    directory = Path(run.address.root, "r0000000d")
    directory.mkdir(mode=0o700)
    sleeps = short_folder / "sleeps"
    script = f"import pathlib, time; pathlib.Path({str(sleeps)!r}).touch(); time.sleep(60)"
    helper = {"argv": [sys.executable, "-I", "-S", "-c", script]}
    Journal(str(directory / "journal")).add({"helper": helper})
    spawn(run, SLEEPS)
    until(sleeps.exists)
    run.shut_down()
    gone_within(BOUND, run.id)
    assert read_records(str(directory / "journal")) == [{"helper": helper}]
    shutil.rmtree(directory.parent)


def test_what_fails_is_tried_again(short_folder: Path) -> None:
    """What cannot be removed now is tried by the next runs, and given up after some."""
    directory = short_folder / "runs" / "r0000000c"
    directory.mkdir(parents=True, mode=0o700)
    journal = Journal(str(directory / "journal"))
    journal.add({"engine": {"socket": str(short_folder / "nobody.sock")}, "service": "x"})
    for attempt in range(1, _clean.MOST_ATTEMPTS):
        _clean.sweep([str(directory.parent)])
        failed = [each for each in read_records(str(directory / "journal")) if "failed" in each]
        assert len(failed) == attempt
        assert "nobody" in str(failed) or "No such file" in str(failed)
    _clean.sweep([str(directory.parent)])
    assert not directory.exists()


# -------------------------------------------------------------------------- containers

CREATES = """
    import json, os, sys
    from cleanroom_runtime import ContainerSpec
    from cleanroom_runtime import _container
    from cleanroom_runtime._engine import Engine
    from cleanroom_runtime._run import Run, RunAddress
    run_id, root, url, image = sys.argv[1:]
    run = Run(RunAddress(run_id, root, os.getpid()))
    spec = ContainerSpec(image=image, port=5432, env={"POSTGRES_PASSWORD": "x"})
    service_id = f"{run_id}-s1"
    _container.launch(run, service_id, "db", spec, Engine(url, "a test"))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_kill_while_a_container_is_created(
    faulty_engine: Any, postgres_image: str, short_folder: Path, number: signal.Signals
) -> None:
    """A container that the engine creates after its client has died is removed."""
    asked = faulty_engine.delay("POST /containers/create", 1.5)
    address = RunAddress(f"r{secrets.token_hex(4)}", str(short_folder / "runs"), 0)
    client = subprocess.Popen(
        [
            sys.executable, "-c", textwrap.dedent(CREATES),
            address.run_id, address.root, faulty_engine.engine.url, postgres_image,
        ],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert asked.wait(60)
        client.send_signal(number)
        client.wait(10)
        until(lambda: faulty_engine.has_answered("POST /containers/create"), BOUND)
        until(lambda: not address.directory.exists(), BOUND + 2)
    finally:
        client.kill()
        client.wait()
    gone_within(BOUND, address.run_id, engine=True)


def test_sweep_of_containers(
    engine: Engine, postgres_image: str, new_run: Callable[[], Run]
) -> None:
    """A killed warden's containers and network go with the next run, and those of others stay."""
    from cleanroom_runtime import ContainerSpec, _container
    from cleanroom_runtime._network import network_of

    spec = ContainerSpec(image=postgres_image, port=5432, env={"POSTGRES_PASSWORD": "x"})
    run, other = new_run(), new_run()
    ids = []
    for each in (run, other):
        endpoint = _container.launch(each, each.new_service_id(), "db", spec, engine)
        ids.append(endpoint.facts["container_id"])
        network_of(each, engine)
    kill_warden(run)
    assert _container.state(ids[0], engine).running
    new_run().request("register", directory="/nonexistent")
    until(lambda: _container.state(ids[0], engine).status == "gone", BOUND)
    until(lambda: not run.address.directory.exists(), BOUND + 4)
    assert left_of(run.id, engine=True) == []
    assert _container.state(ids[1], engine).running
    other.shut_down()
    assert _container.state(ids[1], engine).status == "gone"


def test_marks_are_read() -> None:
    """A process is found by the mark in its environment, whoever its parent is."""
    mark = {_processes.MARK: "r0000000d-s1"}
    with subprocess.Popen([sys.executable, "-c", SLEEPS], env={**os.environ, **mark}) as process:
        until(lambda: _processes.marked("r0000000d") == [process.pid])
        assert _processes.mark_of(process.pid) == "r0000000d-s1"
        assert json.dumps(_processes.marked("r0000000")) == "[]"
        process.kill()
