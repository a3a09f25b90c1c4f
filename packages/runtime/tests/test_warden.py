"""The warden: what clients ask of it, and what it does when they die."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cleanroom_runtime
from cleanroom import InternalError
from cleanroom_runtime._run import Run, RunAddress, WardenRefusalError
from tests.leftovers import (
    command,
    gone_within,
    is_running,
    processes_of,
    services_of,
    until,
    warden_of,
)

BOUND = 5.0
SLEEP = [sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"]


class Client:
    """Another process of the run, which does what a script says until it is told to go on.

    The script finds `run`, `say(name)`, and `pause()`, which never returns.
    """

    PRELUDE = """
        import json, os, pathlib, signal, sys, time
        from cleanroom_runtime._run import Run, RunAddress
        run = Run(RunAddress(*json.loads(sys.argv[1])))
        folder = pathlib.Path(sys.argv[2])
        def say(name, what=""):
            (folder / f".{name}").write_text(str(what))
            (folder / f".{name}").rename(folder / name)
        def pause():
            while True:
                signal.pause()
    """

    def __init__(self, address: RunAddress, script: str, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        arguments = json.dumps([address.run_id, address.root, address.owner])
        code = textwrap.dedent(self.PRELUDE) + textwrap.dedent(script)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, arguments, str(folder)], stderr=subprocess.PIPE, text=True
        )

    def said(self, name: str) -> str:
        """Wait until it has said something."""
        until(lambda: (self.folder / name).exists() or self.process.poll() is not None)
        if not (self.folder / name).exists():
            raise AssertionError(self.process.communicate()[1])
        return (self.folder / name).read_text()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Starts other processes of a run."""
    clients: list[Client] = []

    def start(run: Run, script: str) -> Client:
        clients.append(Client(run.address, script, tmp_path / f"client-{len(clients)}"))
        return clients[-1]

    yield start
    for each in clients:
        each.end()


def spawn(run: Run, argv: list[str] | None = None, **options: Any) -> tuple[str, int]:
    """Start a process service; return its id and pid."""
    service_id = run.new_service_id()
    run.request("register")  # makes the run's directory
    request = {
        "argv": argv or SLEEP,
        "env": dict(os.environ),
        "cwd": "/",
        "log": str(run.address.directory / f"{service_id}.log"),
        "directories": [],
        "stop_signal": "SIGTERM",
        "stop_timeout": 5.0,
    }
    return service_id, int(run.request("spawn", id=service_id, **{**request, **options})["pid"])


def python(script: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", textwrap.dedent(script)]


def log_of(run: Run, service_id: str) -> str:
    return (run.address.directory / f"{service_id}.log").read_text()


# ------------------------------------------------------------------------- the process


def test_imports_little() -> None:
    """The warden runs on the standard library alone, and imports none of its dear modules."""
    folder = Path(cleanroom_runtime.__file__).parent
    script = (
        f"import sys; sys.path.append({str(folder)!r}); import _warden.main; "
        "print(*sorted(name.partition('.')[0] for name in sys.modules))"
    )
    answer = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(answer.stdout.split())
    assert loaded - sys.stdlib_module_names <= {"_warden", "__main__"}
    dear = {"asyncio", "ctypes", "dataclasses", "http", "inspect", "pathlib", "shutil", "ssl",
            "subprocess", "tempfile", "typing", "urllib"}  # fmt: skip
    assert not loaded & dear


def test_is_no_child_and_holds_nothing(run: Run) -> None:
    """The warden is in a session of its own and keeps none of its starter's files open."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    run.request("register")
    pid = warden_of(run.id)
    os.close(writer)
    with open(reader, "rb") as end:
        assert end.read() == b""  # it would block while anybody else could write
    assert os.getsid(pid) == os.getpgid(pid) != os.getsid(0)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ignores_signals(run: Run, number: signal.Signals) -> None:
    """Signals that mean the session do not end the warden before it has cleaned up."""
    _, pid = spawn(run)
    os.kill(warden_of(run.id), number)
    assert run.request("kept")["notes"] == []
    assert is_running(pid)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"no json\n", "malformed"),
        (b"[]\n", "malformed"),
        (b'{"op": "nonsense"}\n', "unknown request 'nonsense'"),
        (b'{"op": "status"}\n', "malformed"),
        (b'{"op": "spawn", "id": "x"}\n', "malformed"),
    ],
)
def test_refuses_nonsense(run: Run, line: bytes, answer: str) -> None:
    """A request that makes no sense is refused and harms nobody."""
    _, pid = spawn(run)
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as replies:
        sock.connect(str(run.address.directory / "warden.sock"))
        sock.sendall(line)
        reply = json.loads(replies.readline())
    assert not reply["ok"]
    assert answer in reply["error"]
    assert is_running(pid)


def test_a_full_disk_is_refused(run: Run) -> None:
    """What cannot be written into the journal is not started, and the warden goes on."""
    run.request("register")
    resource = pytest.importorskip("resource")
    journal = run.address.directory / "journal"
    limit = max(1, journal.stat().st_size)
    # The kernel sends SIGXFSZ and refuses, which Python turns into an OSError as a full disk would.
    resource.prlimit(warden_of(run.id), resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    with pytest.raises(WardenRefusalError, match=r"File too large|No space left"):
        spawn(run)
    resource.prlimit(
        warden_of(run.id), resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )
    _, pid = spawn(run)
    assert is_running(pid)
    until(lambda: str(pid) in journal.read_text())


# ---------------------------------------------------------------------------- children


def test_spawn_and_stop(run: Run) -> None:
    """A process runs until it is stopped; its directories go with it; it may be stopped twice."""
    directory = run.address.directory / "data"
    service_id, pid = spawn(run, directories=[str(directory)], files={f"{directory}/a": "text"})
    assert (directory / "a").read_text() == "text"
    assert run.request("status", id=service_id)["running"]
    for _ in range(2):
        assert run.request("stop", id=service_id)["exit_code"] == -signal.SIGTERM
    assert not is_running(pid)
    assert not directory.exists()
    status = run.request("status", id=service_id)
    assert status["known"]
    assert not status["running"]


def test_stop_by_two_at_once(run: Run, client: Callable[..., Client]) -> None:
    """Two who stop the same process both return when it is gone."""
    service_id, _ = spawn(run, python(IGNORES_SIGTERM), stop_timeout=0.3)
    until(lambda: "ready" in log_of(run, service_id))
    other = client(run, f"say('stopped', run.request('stop', id={service_id!r})['exit_code'])")
    assert run.request("stop", id=service_id)["exit_code"] == -signal.SIGKILL
    assert other.said("stopped") == str(-signal.SIGKILL)


def test_a_program_that_is_not_there(run: Run) -> None:
    """A program that cannot be executed is an error that names it, and leaves nothing."""
    directory = run.address.directory / "data"
    with pytest.raises(WardenRefusalError, match="No such file or directory: /no/such/program"):
        spawn(run, ["/no/such/program"], directories=[str(directory)])
    assert not directory.exists()
    assert run.request("kept")["notes"] == []


def test_exit_code(run: Run) -> None:
    """`wait` says how a process has ended by itself."""
    service_id, _ = spawn(run, python("raise SystemExit(7)"))
    assert run.request("wait", id=service_id)["exit_code"] == 7
    assert run.request("status", id=service_id)["exit_code"] == 7


def test_time_limit(run: Run) -> None:
    """A process with a time limit is asked to end when that is over."""
    service_id, _ = spawn(run, time_limit=0.05)
    ended = run.request("wait", id=service_id)
    assert ended["exit_code"] == -signal.SIGTERM
    assert ended["late"]


HAS_HELPER = """
    import os, signal, sys, time
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(writer)
        print("ready", flush=True)
        os.read(reader, 1)  # until the other one ends
        time.sleep(0.3)
        print("tidied up", flush=True)
        sys.exit()
    {leader}
    while True:
        signal.pause()
"""


@pytest.mark.parametrize("how", ["stop", "shutdown"])
def test_gentle_stop(run: Run, tmp_path: Path, how: str) -> None:
    """When such a process is stopped, the others in its group have time to tidy up."""
    log = tmp_path / "log"
    script = HAS_HELPER.replace("{leader}", "pass")
    service_id, _ = spawn(run, python(script), gentle=True, log=str(log))
    until(lambda: log.exists() and "ready" in log.read_text())
    if how == "stop":
        run.request("stop", id=service_id)
    else:
        run.shut_down()
    assert "tidied up" in log.read_text()


def test_gentle_end(run: Run) -> None:
    """When such a process ends by itself, the others in its group have time as well."""
    script = HAS_HELPER.replace("{leader}", "time.sleep(0.5); os._exit(3)")
    service_id, _ = spawn(run, python(script), gentle=True)
    assert run.request("wait", id=service_id)["exit_code"] == 3
    assert "tidied up" in log_of(run, service_id)


def test_input_and_surroundings(run: Run) -> None:
    """A process reads its input, has default signal handlers, and is in a session of its own."""
    source = run.address.directory / "input"
    script = """
        import os, signal, sys
        print(sys.stdin.read(), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
              os.getsid(0) == os.getpid(), len(os.listdir("/proc/self/fd")), os.getcwd())
    """
    service_id, _ = spawn(
        run, python(script), input=str(source), files={str(source): "hello"}, cwd="/usr"
    )
    run.request("wait", id=service_id)
    # Standard input, output and error, and the directory that was listed.
    assert log_of(run, service_id).split() == ["hello", "True", "True", "4", "/usr"]


IGNORES_SIGTERM = """
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    while True:
        signal.pause()
"""

FORKS = """
    import os, signal, threading
    def fork():
        if os.fork() == 0:
            if os.fork() == 0:
                signal.pause()
            signal.pause()
    thread = threading.Thread(target=fork)
    thread.start()
    print("ready", flush=True)
    signal.pause()
"""

DAEMONISES = """
    import os, signal
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("ready", os.getpid(), flush=True)
            while True:
                signal.pause()
        os._exit(0)
    os.wait()
    signal.pause()
"""


@pytest.mark.parametrize("script", [IGNORES_SIGTERM, FORKS, DAEMONISES])
@pytest.mark.parametrize("how", ["stop", "shutdown"])
def test_stubborn_services(run: Run, script: str, how: str) -> None:
    """A service that ignores its signal, or has processes of its own, is gone once stopped."""
    service_id, _ = spawn(run, python(script), stop_timeout=0.3)
    until(lambda: "ready" in log_of(run, service_id))
    wanted = {FORKS: 3, DAEMONISES: 2}.get(script, 1)
    until(lambda: len(services_of(run.id)) >= wanted)
    pids = services_of(run.id)
    if how == "stop":
        run.request("stop", id=service_id)
    else:
        run.shut_down()
    assert [command(pid) for pid in pids if is_running(pid)] == []


def test_a_long_stop_is_cut_short_at_the_end(run: Run) -> None:
    """When the run ends, a service that may take a minute to stop has three seconds."""
    service_id, pid = spawn(run, python(IGNORES_SIGTERM), stop_timeout=60.0)
    until(lambda: "ready" in log_of(run, service_id))
    began = time.monotonic()
    run.shut_down()
    assert not is_running(pid)
    assert 2.5 < time.monotonic() - began < BOUND


def test_a_stopped_service_is_stopped(run: Run) -> None:
    """A process that SIGSTOP holds is woken to hear that it is to end."""
    service_id, pid = spawn(run)
    os.kill(pid, signal.SIGSTOP)
    assert run.request("stop", id=service_id)["exit_code"] == -signal.SIGTERM


# ---------------------------------------------------------------------- when clients die


def test_death_of_the_owner(client: Callable[..., Client]) -> None:
    """When the only process of a run is killed, its services are gone within the bound."""
    address = RunAddress.new()
    owner = client(
        Run(RunAddress(address.run_id, address.root, 0)),
        """
        run = Run(run.address._replace(owner=os.getpid()))
        run.request("register")
        say("begun")
        pause()
        """,
    )
    owner.said("begun")
    other = Run(RunAddress(address.run_id, address.root, 0))
    _, pid = spawn(other)
    other.disconnect()
    owner.process.kill()
    owner.process.wait()
    gone_within(BOUND, address.run_id)
    assert not is_running(pid)


OWNER_WITH_CHILD = """
    run = Run(run.address._replace(owner=os.getpid()))
    run.request("register")
    if os.fork() == 0:
        say("child", os.getpid())
        pause()
    say("begun")
    pause()
"""


def test_death_of_an_owner_whose_child_holds_the_socket(client: Callable[..., Client]) -> None:
    """A child that the owner forked, with the owner's sockets, does not keep the run alive."""
    address = RunAddress.new()
    owner = client(Run(RunAddress(address.run_id, address.root, 0)), OWNER_WITH_CHILD)
    owner.said("begun")
    child = int(owner.said("child"))
    sockets = [os.readlink(each) for each in Path(f"/proc/{child}/fd").iterdir()]
    assert [each for each in sockets if each.startswith("socket:")]
    owner.process.kill()
    owner.process.wait()
    try:
        # The child's own arguments name the run: it is none of the run's processes.
        until(lambda: not Path(address.root, address.run_id).exists(), BOUND)
        until(lambda: processes_of(address.run_id) == [child], BOUND)
    finally:
        os.kill(child, signal.SIGKILL)


def test_workers_have_time_after_the_owner(client: Callable[..., Client]) -> None:
    """While others are connected, services stay a moment after the owner has died, no longer."""
    address = RunAddress.new()
    owner = client(
        Run(RunAddress(address.run_id, address.root, 0)),
        "run = Run(run.address._replace(owner=os.getpid()))\n"
        "run.request('register'); say('begun'); pause()",
    )
    owner.said("begun")
    worker = Run(RunAddress(address.run_id, address.root, 0))
    _, pid = spawn(worker)
    owner.process.kill()
    owner.process.wait()
    killed = time.monotonic()
    until(lambda: not is_running(pid), 15)
    assert time.monotonic() - killed > 1
    gone_within(BOUND, address.run_id)
    with pytest.raises(InternalError, match="is gone"):
        worker.request("kept")


def test_claim(run: Run, client: Callable[..., Client]) -> None:
    """One does it, the others wait and get its outcome, however late they come."""
    assert run.request("claim", key="k")["granted"]
    other = client(run, "say('asks'); say('outcome', run.request('claim', key='k')['outcome'])")
    other.said("asks")
    run.request("settle", key="k", outcome="done")
    assert other.said("outcome") == "done"
    assert run.request("claim", key="k") == {"ok": True, "granted": False, "outcome": "done"}
    assert run.request("outcomes", prefix="")["outcomes"] == {"k": "done"}


def test_claim_of_one_who_dies(run: Run, client: Callable[..., Client]) -> None:
    """What a process has claimed that is killed, even with its sockets held, the next one does."""
    other = client(
        run,
        """
        run.request("claim", key="k")
        if os.fork() == 0:
            say("child", os.getpid())
            pause()
        say("claimed")
        pause()
        """,
    )
    other.said("claimed")
    child = int(other.said("child"))
    wait = run.begin("claim", key="k")
    other.process.kill()
    try:
        assert wait()["granted"]
    finally:
        os.kill(child, signal.SIGKILL)


def test_disclaim(run: Run, client: Callable[..., Client]) -> None:
    """Who gives up passes it on, and cannot give up what another has taken over."""
    run.request("claim", key="k")
    other = client(run, "say('asks'); run.request('claim', key='k'); say('granted'); pause()")
    other.said("asks")
    run.request("disclaim", key="k")
    other.said("granted")
    run.request("disclaim", key="k")
    with pytest.raises(WardenRefusalError, match="not claimed by this process"):
        run.request("settle", key="k", outcome="mine")
    wait = run.begin("claim", key="k")
    other.process.kill()
    assert wait()["granted"]


def test_one_who_waits_dies(run: Run, client: Callable[..., Client]) -> None:
    """A claim is not passed on to one who has died while it waited."""
    run.request("claim", key="k")
    other = client(run, "wait = run.begin('claim', key='k'); say('waits'); pause()")
    other.said("waits")
    other.end()
    until(lambda: not is_running(other.process.pid))
    run.request("disclaim", key="k")
    assert run.request("claim", key="k")["granted"]


def test_one_who_died_before_it_was_heard(run: Run) -> None:
    """What a process has sent is not done for it when it is known to be dead."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    run.request("register")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.connect(str(run.address.directory / "warden.sock"))
        hello, claim = {"op": "hello", "pid": dead.pid}, {"op": "claim", "key": "k"}
        line.sendall(f"{json.dumps(hello)}\n{json.dumps(claim)}\n".encode())
        line.settimeout(BOUND)
        while line.recv(1024):
            pass  # until the warden closes it
        assert run.request("claim", key="k")["granted"]


def test_leases(run: Run, client: Callable[..., Client]) -> None:
    """Each gets another number; a number comes back when it is released or its holder dies."""
    assert run.request("lease", pool="p", size=2)["index"] == 0
    other = client(run, "say('index', run.request('lease', pool='p', size=2)['index']); pause()")
    assert other.said("index") == "1"
    with pytest.raises(WardenRefusalError, match="all 2 of p are leased"):
        run.request("lease", pool="p", size=2)
    run.request("release", pool="p", index=1)  # not ours
    with pytest.raises(WardenRefusalError, match="all 2"):
        run.request("lease", pool="p", size=2)
    run.request("release", pool="p", index=0)
    assert run.request("lease", pool="p", size=2)["index"] == 0
    other.end()
    until(lambda: lease_or_none(run) == 1)


def lease_or_none(run: Run) -> int | None:
    with contextlib.suppress(WardenRefusalError):
        return int(run.request("lease", pool="p", size=2)["index"])
    return None


def test_a_lease_outlives_a_closed_connection(run: Run, client: Callable[..., Client]) -> None:
    """A process that closes its connections keeps what it leases while it lives."""
    other = client(
        run, "run.request('lease', pool='p', size=1); run.disconnect(); say('x'); pause()"
    )
    other.said("x")
    with pytest.raises(WardenRefusalError, match="all 1"):
        run.request("lease", pool="p", size=1)


def test_without_pidfd(client: Callable[..., Client], tmp_path: Path) -> None:
    """Where the system cannot watch processes, the end of the owner is found out by asking."""
    script = """
        from cleanroom_runtime import _line
        _line._WARDEN = "import os; del os.pidfd_open; " + _line._WARDEN
        run = Run(run.address._replace(owner=os.getpid()))
        run.request("lease", pool="p", size=1)
        say("begun")
        pause()
    """
    address = RunAddress.new()
    owner = client(Run(RunAddress(address.run_id, address.root, 0)), script)
    owner.said("begun")
    other = Run(RunAddress(address.run_id, address.root, 0))
    spawn(other)
    assert not [
        each
        for each in Path(f"/proc/{warden_of(address.run_id)}/fd").iterdir()
        if "pidfd" in os.readlink(each)
    ]
    other.disconnect()
    owner.end()
    gone_within(BOUND, address.run_id)


# ---------------------------------------------------------------------------- the end


def test_keep(run: Run, client: Callable[..., Client]) -> None:
    """A run that is kept outlives its session, until it is ended in so many words."""
    _, pid = spawn(run)
    run.request("keep", note="look at this")
    assert run.shut_down()
    assert run.request("kept")["notes"] == ["look at this"]
    assert is_running(pid)
    assert not run.shut_down(kept_too=True)
    assert not is_running(pid)
    gone_within(BOUND, run.id)


def test_a_helper_of_a_service_that_is_gone(run: Run, tmp_path: Path) -> None:
    """It is not run: what it was to remove has been removed when its service was stopped."""
    ran = tmp_path / "ran"
    service_id = run.new_service_id()
    helper = {"argv": [sys.executable, "-c", f"open({str(ran)!r}, 'w')"]}
    run.request("register", id=service_id, helper=helper)
    run.request("stop", id=service_id)
    run.shut_down()
    gone_within(BOUND, run.id)
    assert not ran.exists()


def test_a_helper_is_run_at_the_end(run: Run, tmp_path: Path) -> None:
    """A command that was registered runs when the run ends, with its input and environment."""
    script = "import os, sys; open(os.environ['TO'], 'w').write(sys.stdin.read())"
    helper = {
        "argv": [sys.executable, "-c", script],
        "input": "text",
        "env": {"TO": str(tmp_path / "to")},
    }
    run.request("register", helper=helper)
    run.shut_down()
    assert (tmp_path / "to").read_text() == "text"
    gone_within(BOUND, run.id)
