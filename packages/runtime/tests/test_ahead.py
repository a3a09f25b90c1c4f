"""What the last run of the same tests had launched is launched while pytest collects."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from cleanroom_runtime import _caches, _notes, _small_files
from tests.leftovers import is_running, until

CONFTEST = '''
import socket
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from cleanroom_runtime import BasePlugin, LocalServer, ProcessSpec

SERVER = """
import os, socket, sys
port, lid, file = sys.argv[1:]
if lid == "locked":
    raise SystemExit("no key")
with open(file, "a") as launched:
    print(os.getpid(), file=launched)
listener = socket.create_server(("127.0.0.1", int(port)))
while True:
    connection, _ = listener.accept()
    connection.sendall(f"{os.getpid()} {lid}".encode())
    connection.close()
"""

class BoxPlugin(BasePlugin):
    plugin_type = "box"

    def local_servers(self):
        return [LocalServer(Path(sys.executable), "1.0", "this Python")]

    def attach(self, url, service_id):
        return {"url": url, "host": "localhost", "port": "1"}

    def process(self, server, workspace):
        Path("asked").touch()
        lid = Path("lid").read_text()
        command = [str(server.executable), "-c", dedent(SERVER)]
        return ProcessSpec(
            [*command, str(workspace.port), lid, str(Path("launched").absolute())],
            files={workspace.directory / INSIDE: lid},
            env=ENVIRONMENT,
            ahead=True,
        )

    def describe(self, host, port):
        return {"url": f"box://{host}:{port}"}

    def probe(self, endpoint, timeout):
        if endpoint["backend"] == "external":
            return
        with socket.create_connection((endpoint["host"], int(endpoint["port"])), timeout) as s:
            pid, lid = s.recv(100).decode().split()
            assert pid == endpoint["pid"], "somebody else's box"

ENVIRONMENT = {}
INSIDE = "inside"

@pytest.fixture(scope="session")
def box(cleanroom_services):
    return cleanroom_services.start("box", BoxPlugin("box"))
'''
"""A plugin whose server says its pid to whoever connects, and notes it when it is launched."""

TESTS = """
import os
from pathlib import Path

from tests.leftovers import until

LAUNCHED = Path("launched")
if "AHEAD" in os.environ:
    until(LAUNCHED.exists, 20)
    assert not Path("asked").exists()
else:
    assert not LAUNCHED.exists()

def test_box(box):
    Path("used").write_text(f"{box.require('pid')} {box.url}")
    inside = Path(box.require("log")).with_name("inside")
    assert inside.read_text() == Path("lid").read_text()
"""


class Suite:
    """A suite of tests with a box."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.cache = pytester.path / "cache"
        self._monkeypatch = monkeypatch
        for name in os.environ:
            if name.startswith("CLEANROOM_") and not name.startswith("CLEANROOM_TEST_"):
                monkeypatch.delenv(name)
        for name in ("COLUMNS", "LINES"):  # as where the outer tests have no workers
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("CLEANROOM_CACHE_DIR", str(self.cache))
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        pytester.makeconftest(CONFTEST)
        pytester.makepyfile(test_box=TESTS)
        self.lock("open")

    def lock(self, lid: str) -> None:
        """Set an argument of the server's."""
        (self.path / "lid").write_text(lid)

    def run(self, *arguments: str, ahead: bool, passed: int = 1) -> None:
        """Run the suite, which asserts whether its server is launched while pytest collects."""
        self.run_anyhow(*arguments, ahead=ahead).assert_outcomes(passed=passed)

    def run_anyhow(self, *arguments: str, ahead: bool = False) -> pytest.RunResult:
        """Run pytest in a process of its own."""
        for name in ("launched", "asked", "used"):
            (self.path / name).unlink(missing_ok=True)
        with self._monkeypatch.context() as environment:
            if ahead:
                environment.setenv("AHEAD", "1")
            return self.pytester.runpytest_subprocess(
                "-p", "no:randomly", "-p", "no:cacheprovider", "-W", "error", *arguments
            )

    @property
    def launched(self) -> list[int]:
        """The pids of the servers that the last run launched, the first one first."""
        file = self.path / "launched"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    @property
    def used(self) -> int:
        """The pid of the server that the last run's test was given."""
        return int((self.path / "used").read_text().split()[0])

    @property
    def notes(self) -> list[Path]:
        """The notes in the cache."""
        return list((self.cache / _caches.NOTES).glob("*"))


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """A suite of tests to run with pytest."""
    return Suite(pytester, monkeypatch)


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_server_is_launched_while_pytest_collects(suite: Suite, workers: list[str]) -> None:
    suite.run(*workers, ahead=False)
    if workers:  # they collect after the controller has launched, and then they are asked
        suite.pytester.makepyfile(test_box=TESTS.replace('assert not Path("asked").exists()', ""))
    suite.run(*workers, ahead=True)
    assert suite.launched == [suite.used]
    until(lambda: not is_running(suite.used), 5)
    suite.run(*workers, "-v", ahead=True)  # what chooses no tests changes nothing
    assert suite.launched == [suite.used]


def test_nobody_else_can_read_the_note(suite: Suite) -> None:
    suite.run(ahead=False)
    (note,) = suite.notes
    assert note.stat().st_mode & 0o777 == 0o600
    assert note.parent.stat().st_mode & 0o777 == 0o700


def test_other_tests_are_another_run(suite: Suite) -> None:
    suite.run(ahead=False)
    suite.run("-k", "box", ahead=False)
    suite.run("test_box.py", ahead=False)
    suite.run("-k", "box", ahead=True)


def test_server_of_another_kind_is_not_used(suite: Suite) -> None:
    suite.run(ahead=False)
    suite.lock("ajar")
    suite.run(ahead=True)
    first, second = suite.launched
    assert suite.used == second
    until(lambda: not is_running(first), 5)
    suite.run(ahead=True)
    assert suite.launched == [suite.used]


def test_server_in_another_environment_is_not_used(suite: Suite) -> None:
    changed = f"{TESTS}\nos.environ['COLOUR'] = 'red'\n"
    suite.pytester.makepyfile(test_box=changed)
    suite.run(ahead=False)
    suite.run(ahead=True)
    first, second = suite.launched
    assert suite.used == second
    until(lambda: not is_running(first), 5)
    # It would be in vain each time.
    suite.run(ahead=False)
    suite.run(ahead=False)


ELSEWHERE = """
from pathlib import Path

from tests.leftovers import is_running, until

if AHEAD:
    until(Path("launched").exists, 20)

def test_box(box):
    assert box.require("backend") == "external"
    if AHEAD:
        [pid] = Path("launched").read_text().split()
        until(lambda: not is_running(int(pid)), 5)
"""


def test_process_ends_when_its_service_runs_elsewhere(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite.run(ahead=False)
    monkeypatch.setenv("CLEANROOM_BACKEND", "external")
    monkeypatch.setenv("CLEANROOM_BOX_URL", "box://localhost:1")
    for ahead in (True, False):
        suite.pytester.makepyfile(test_box=ELSEWHERE.replace("AHEAD", str(ahead)))
        suite.run_anyhow().assert_outcomes(passed=1)
        assert bool(suite.launched) is ahead


def test_process_ends_when_its_files_cannot_be_written(suite: Suite) -> None:
    suite.run(ahead=False)
    suite.pytester.makeconftest(CONFTEST.replace('INSIDE = "inside"', 'INSIDE = "no/folder"'))
    gone = """
        from pathlib import Path

        import pytest

        from tests.leftovers import is_running, until

        until(Path("launched").exists, 20)

        def test_box(request):
            with pytest.raises(Exception, match="no/folder"):
                request.getfixturevalue("box")
            [pid] = Path("launched").read_text().split()
            until(lambda: not is_running(int(pid)), 5)
    """
    suite.pytester.makepyfile(test_box=gone)
    suite.run_anyhow().assert_outcomes(passed=1)


def test_process_ends_when_something_else_is_kept(suite: Suite) -> None:
    suite.run(ahead=False)
    keeps = """
        from pathlib import Path

        from cleanroom_runtime import current_run
        from tests.leftovers import until

        until(Path("launched").exists, 20)

        def test_keeps():
            current_run().request("keep", note="this")
            Path("run").write_text(current_run().id)
    """
    suite.pytester.makepyfile(test_box=keeps)
    suite.run_anyhow().assert_outcomes(passed=1)
    (pid,) = suite.launched
    until(lambda: not is_running(pid), 5)
    stop = [sys.executable, "-m", "cleanroom_runtime", "stop", (suite.path / "run").read_text()]
    subprocess.run(stop, check=True)


def test_what_no_test_asks_for_any_more_is_forgotten(suite: Suite) -> None:
    suite.run(ahead=False)
    suite.pytester.makepyfile(
        test_box=TESTS.replace("test_box(box):", "test_nothing():\n    return")
    )
    suite.run(ahead=True)
    (pid,) = suite.launched
    until(lambda: not is_running(pid), 5)
    assert not suite.notes
    suite.run(ahead=False)
    assert not suite.launched


def test_what_is_left_out_from_now_on_is_forgotten(suite: Suite) -> None:
    suite.run(ahead=False)
    suite.pytester.makeconftest(
        f"{CONFTEST}\ndef pytest_collection_modifyitems(items): items.clear()"
    )
    suite.run(ahead=True, passed=0)
    assert not suite.notes


def test_run_that_ends_early_forgets_nothing(suite: Suite) -> None:
    suite.run(ahead=False)
    suite.pytester.makepyfile(test_a="def test_fails(): raise AssertionError")
    suite.run_anyhow("-x", ahead=True).assert_outcomes(failed=1)
    (suite.path / "test_a.py").unlink()
    suite.run(ahead=True)


@pytest.mark.parametrize("option", ["--collect-only", "--setup-plan", "--cleanroom-fresh"])
def test_options_that_start_nothing_beforehand(suite: Suite, option: str) -> None:
    suite.run(ahead=False)
    passed = 1 if option == "--cleanroom-fresh" else 0
    suite.run(option, ahead=False, passed=passed)
    suite.run(ahead=True)


def test_switching_it_off(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    suite.run(ahead=False)
    monkeypatch.setenv(_caches.AHEAD_VARIABLE, "0")
    suite.run(ahead=False)
    monkeypatch.setenv("CLEANROOM_CACHE_DIR", str(suite.path / "empty"))
    suite.run(ahead=False)
    assert not (suite.path / "empty" / _caches.NOTES).exists()


def test_variables_of_the_server_are_not_noted(suite: Suite) -> None:
    secret = CONFTEST.replace("ENVIRONMENT = {}", "ENVIRONMENT = {'TOKEN': 'hush-hush'}")
    suite.pytester.makeconftest(secret)
    suite.run(ahead=False)
    (note,) = suite.notes
    assert "hush-hush" not in note.read_text()
    suite.run(ahead=False)


def test_server_that_may_not_be_launched_ahead(suite: Suite) -> None:
    suite.pytester.makeconftest(CONFTEST.replace("ahead=True", "ahead=False"))
    suite.run(ahead=False)
    suite.run(ahead=False)


def test_service_of_one_test_is_not_noted(suite: Suite) -> None:
    own = """
    from conftest import BoxPlugin

    def test_own():
        plugin = BoxPlugin("box")
        plugin.stop(plugin.start())
    """
    suite.pytester.makepyfile(test_box=textwrap.dedent(own))
    suite.run_anyhow().assert_outcomes(passed=1)
    assert not suite.notes


def test_server_that_has_ended_by_itself_is_launched_anew(suite: Suite) -> None:
    suite.run(ahead=False)
    ends_it = "os.kill(int(LAUNCHED.read_text()), 9); LAUNCHED.unlink()"
    changed = TESTS.replace(
        'assert not Path("asked").exists()', f"{ends_it}  # as if its port was taken"
    )
    changed = changed.replace(
        "LAUNCHED.exists, 20", "lambda: LAUNCHED.exists() and LAUNCHED.read_text(), 20"
    )
    suite.pytester.makepyfile(test_box=changed)
    suite.run(ahead=True)
    assert suite.launched == [suite.used]
    suite.run(ahead=True)  # it may have been an accident


def test_what_goes_wrong_beforehand_breaks_no_test(suite: Suite) -> None:
    suite.run(ahead=False)
    refusing = """
import socket

def refuse(*arguments, **options):
    raise RuntimeError("no sockets here")

socket.socket.bind = refuse
"""
    suite.pytester.makeconftest(refusing)
    suite.pytester.makepyfile(test_box="def test_nothing(): pass")
    suite.run(ahead=False)


def test_damaged_note_is_no_note(suite: Suite) -> None:
    suite.run(ahead=False)
    (note,) = suite.notes
    known = json.loads(note.read_text())
    ((_, noted),) = known["services"].items()
    for damaged in (
        "",
        "[]",
        '{"format": 0}',
        json.dumps({**known, "services": {"box": []}}),
        json.dumps({**known, "services": {"box": ["{}", False]}}),
        json.dumps({**known, "services": {"box": [noted[0][:-9], False]}}),
    ):
        note.write_text(damaged)
        suite.run(ahead=False)
        suite.run(ahead=True)


@pytest.mark.parametrize("name", ["", "note"])
def test_what_others_can_write_is_no_note(suite: Suite, name: str) -> None:
    suite.run(ahead=False)
    (note,) = suite.notes
    (note if name else note.parent).chmod(0o777)
    suite.run(ahead=False)


def test_killed_run_leaves_no_server(suite: Suite) -> None:
    suite.run(ahead=False)
    (suite.path / "launched").unlink()
    waits = "from tests.leftovers import until\nuntil(lambda: False, 60)\n"
    suite.pytester.makepyfile(test_box=waits)
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(suite.path)],
        cwd=suite.path,
        stdout=subprocess.DEVNULL,
    ) as process:
        until(lambda: bool(suite.launched), 20)
        process.send_signal(signal.SIGKILL)
    (pid,) = suite.launched
    until(lambda: not is_running(pid), 10)


def test_number_of_notes_is_bounded(tmp_path: Path) -> None:
    folder = tmp_path / _caches.NOTES
    noted = _notes.Noted("how")
    for number in range(_small_files.MOST):
        _notes.add(folder / f"{number}.json", "db", noted)
        os.utime(folder / f"{number}.json", (number, number))
    _small_files.note_use(folder / "0.json")
    _notes.add(folder / "new.json", "db", noted)
    assert len(list(folder.iterdir())) == _small_files.MOST
    assert not (folder / "1.json").exists()
    assert _notes.read(folder / "0.json") == _notes.read(folder / "new.json") == {"db": noted}


def test_cache_that_is_read_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    note = tmp_path / "file" / _caches.NOTES / "note.json"
    _notes.add(note, "db", _notes.Noted())
    _small_files.note_use(note)
    assert _notes.read(note) == {}


def test_threads_that_note_at_the_same_time(tmp_path: Path) -> None:
    """Of services that start together, each is noted."""
    note = tmp_path / _caches.NOTES / "note.json"
    names = [f"db{number}" for number in range(16)]
    together = threading.Barrier(len(names))

    def add(name: str) -> None:
        together.wait(10)
        _notes.add(note, name, _notes.Noted(name))

    threads = [threading.Thread(target=add, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _notes.read(note).keys() == {*names}
