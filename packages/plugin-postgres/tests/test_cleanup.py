"""Nothing is left behind, however a test session ends; each is a real one, in a process of its own.

How long it may take is what the project promises: 5 seconds, 15 where xdist's controller was
killed, whose workers have to find out by themselves.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.leftovers import (
    command,
    gone_within,
    is_running,
    left_of,
    processes_of,
    segments_of,
    until,
    warden_of,
)

BOUND = 5.0
BOUND_WITHOUT_CONTROLLER = 15.0

CONFTEST = """
    import json, os, pathlib, pytest, time
    from cleanroom_runtime import current_run

    HERE = pathlib.Path(__file__).parent
    (HERE / f"run-{os.getpid()}").write_text("")

    def say(name, **facts):
        (HERE / "unsaid").mkdir(exist_ok=True)
        text = HERE / "unsaid" / f"{name}-{os.getpid()}"
        text.write_text(json.dumps({"pid": os.getpid(), **facts}))
        text.rename(HERE / f"{name}-{os.getpid()}.said")

    def wait_for(name):
        deadline = time.monotonic() + 60
        while not (HERE / name).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @pytest.fixture
    def told():
        return wait_for

    @pytest.fixture
    def tell(postgres_service):
        return lambda name: say(name, handle=json.loads(postgres_service.to_json()))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(session):
        say("session", run=current_run().id)
"""


class Suite:
    """A test suite in a folder of its own, run by pytest as a user would."""

    def __init__(self, folder: Path, backend: str, image: str | None) -> None:
        self.folder = folder
        self.backend = backend
        self.environment = {**os.environ, "CLEANROOM_BACKEND": backend}
        self._sessions: list[subprocess.Popen[str]] = []
        service = f'[tool.cleanroom.services.db]\nplugin = "postgres"\nimage = "{image}"\n'
        (folder / "pyproject.toml").write_text(service if image else "")
        (folder / "conftest.py").write_text(textwrap.dedent(CONFTEST))

    @property
    def in_engine(self) -> bool:
        return self.backend == "container"

    def write(self, test: str) -> None:
        (self.folder / "test_it.py").write_text(textwrap.dedent(test))

    def start(self, *options: str) -> subprocess.Popen[str]:
        plugins = ["-p", "no:randomly", "-p", "no:cacheprovider"]
        session = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-v", "-s", *plugins, *options, str(self.folder)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._sessions.append(session)
        return session

    def said(self, name: str, of: int = 1, within: float = 60.0) -> list[dict[str, object]]:
        """Wait until so many processes have said something, and return what."""
        until(lambda: len(list(self.folder.glob(f"{name}-*.said"))) >= of, within)
        return [json.loads(file.read_text()) for file in self.folder.glob(f"{name}-*.said")]

    def run_id(self) -> str:
        return str(self.said("session")[0]["run"])

    def let(self, name: str) -> None:
        """Let tests that wait for this go on."""
        (self.folder / name).touch()

    def close(self) -> None:
        for session in self._sessions:
            if session.poll() is None:
                session.kill()
            session.communicate()


@pytest.fixture(params=["process", pytest.param("container", marks=pytest.mark.slow)])
def suite(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Suite]:
    """A suite that runs its service on each backend in turn."""
    container = request.param == "container"
    image = request.getfixturevalue("postgres_image") if container else None
    suite = Suite(tmp_path, request.param, image)
    yield suite
    suite.close()


@pytest.fixture
def process_suite(tmp_path: Path) -> Iterator[Suite]:
    """A suite that runs its service as a process."""
    suite = Suite(tmp_path, "process", None)
    yield suite
    suite.close()


HOLDS = """
    def test_holds(postgres_db, tell, told):
        with postgres_db.connect() as connection:
            connection.execute("CREATE TABLE t (i int)")
        tell("holds")
        told("go on")
"""


def assert_all_is_there(suite: Suite, run_id: str) -> None:
    left = left_of(run_id, engine=suite.in_engine)
    kind = "container" if suite.in_engine else "process"
    assert [line for line in left if line.startswith(kind)], left


# --------------------------------------------------------------------- how sessions end


@pytest.mark.parametrize("outcome", ["passes", "fails"])
def test_after_tests(suite: Suite, outcome: str) -> None:
    """Nothing is left after a test that passes, nor after one that fails."""
    suite.write(f"""
        def test_it(postgres_db, tell, told):
            tell("holds")
            told("go on")
            with postgres_db.connect() as connection:
                connection.execute("CREATE TABLE t (i int)")
            assert {outcome == "passes"}
    """)
    session = suite.start()
    suite.said("holds")
    run_id = suite.run_id()
    assert_all_is_there(suite, run_id)
    suite.let("go on")
    output, _ = session.communicate(timeout=60)
    assert session.returncode == (0 if outcome == "passes" else 1), output
    gone_within(BOUND, run_id, engine=suite.in_engine)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_after_a_signal(suite: Suite, number: signal.Signals) -> None:
    """Nothing is left after Ctrl-C, SIGTERM or SIGKILL in a test."""
    suite.write(HOLDS)
    session = suite.start()
    suite.said("holds")
    run_id = suite.run_id()
    assert_all_is_there(suite, run_id)
    session.send_signal(number)
    gone_within(BOUND, run_id, engine=suite.in_engine)
    session.communicate(timeout=10)


NEVER_READY = """
    from cleanroom_plugin_postgres import PostgresPlugin

    def test_never_ready(request):
        plugin = PostgresPlugin("slow", {image!r}, "test")
        plugin.with_setting("pre_auth_delay", 60).start()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_while_a_server_starts(
    suite: Suite, number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    """Nothing is left when the session ends while it waits for a server to be ready."""
    image = request.getfixturevalue("postgres_image") if suite.in_engine else None
    suite.write(NEVER_READY.format(image=image))
    session = suite.start()
    run_id = suite.run_id()
    until(lambda: is_up(suite, run_id))
    session.send_signal(number)
    gone_within(BOUND, run_id, engine=suite.in_engine)
    output, _ = session.communicate(timeout=10)
    if number == signal.SIGINT:
        assert session.returncode == pytest.ExitCode.INTERRUPTED, output
        assert "Error" not in output.partition("KeyboardInterrupt")[2], output


def is_up(suite: Suite, run_id: str) -> bool:
    """Whether a server runs; it does long before it answers."""
    if suite.in_engine:
        return bool([each for each in left_of(run_id, engine=True) if each.startswith("container")])
    return any("pre_auth_delay" in command(pid) for pid in alive(processes_of(run_id)))


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if is_running(pid)]


# ------------------------------------------------------------------------ under xdist


def test_kill_of_the_controller(suite: Suite) -> None:
    """Nothing is left when xdist's controller is killed and its workers are in the middle."""
    suite.write(HOLDS + HOLDS.replace("test_holds", "test_holds_too"))
    session = suite.start("-n", "2")
    suite.said("holds", of=2)
    run_id = suite.run_id()
    assert_all_is_there(suite, run_id)
    workers = [each["pid"] for each in suite.said("holds", of=2)]
    session.kill()
    gone_within(BOUND_WITHOUT_CONTROLLER, run_id, engine=suite.in_engine)
    suite.let("go on")
    until(lambda: not alive([int(str(pid)) for pid in workers]), BOUND_WITHOUT_CONTROLLER)


def test_kill_of_a_worker(suite: Suite) -> None:
    """Where one worker is killed, the others keep the service, and the end is clean."""
    suite.write("""
        import pytest

        earlier = []

        @pytest.mark.parametrize("number", range(6))
        def test_it(postgres_db, tell, told, number):
            with postgres_db.connect() as connection:
                connection.execute("CREATE TABLE t (i int)")
            earlier.append(number)
            if len(earlier) == 1:
                tell("holds")
                told("go on")
                with postgres_db.connect() as connection:
                    connection.execute("INSERT INTO t VALUES (1)")
            tell("done")
    """)
    session = suite.start("-n", "2")
    first, second = suite.said("holds", of=2)
    run_id = suite.run_id()
    assert first["handle"] == second["handle"]
    os.kill(int(str(first["pid"])), signal.SIGKILL)
    until(lambda: not is_running(int(str(first["pid"]))))
    suite.let("go on")
    output, _ = session.communicate(timeout=120)
    assert session.returncode == 1, output
    assert "1 failed" in output, output
    assert "5 passed" in output, output
    assert "crashed while running" in output, output
    done = {each["pid"]: each["handle"] for each in suite.said("done")}
    assert first["pid"] not in done
    assert done[second["pid"]] == second["handle"]
    assert list(done.values()) == [second["handle"]] * len(done)
    gone_within(BOUND, run_id, engine=suite.in_engine)


# ------------------------------------------------------------------ while it prepares


@pytest.mark.parametrize("program", ["initdb", "--single"])
def test_kill_while_the_cache_is_built(process_suite: Suite, tmp_path: Path, program: str) -> None:
    """When the session is killed while `initdb` works, nothing is left, nor in the cache.

    Nor in shared memory, which the programs that `initdb` runs ask for in POSIX's way.
    """
    before = unused_posix_memory()
    cache = tmp_path / "cache"
    process_suite.environment["CLEANROOM_CACHE_DIR"] = str(cache)
    process_suite.write(HOLDS)
    session = process_suite.start()
    run_id = process_suite.run_id()
    until(lambda: any(program in command(pid) for pid in alive(processes_of(run_id))))
    if program == "--single":
        until(lambda: posix_memory() - before)
    session.kill()
    gone_within(BOUND, run_id)
    assert not list(cache.glob("postgres/*/content"))
    assert unused_posix_memory() <= before
    assert_it_works_now(process_suite)


def posix_memory() -> set[str]:
    return {str(path) for path in Path("/dev/shm").glob("PostgreSQL.*")}


def unused_posix_memory() -> set[str]:
    """Return the files of shared memory that no process has mapped any more."""
    there = posix_memory()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            text = maps.read_text()
            there -= {path for path in there if path in text}
    return there


def test_kill_while_the_cache_is_filled(process_suite: Suite, tmp_path: Path) -> None:
    """When the session is killed while it fills the cache, nothing half made is left there."""
    cache = tmp_path / "cache"
    process_suite.environment["CLEANROOM_CACHE_DIR"] = str(cache)
    process_suite.write("""
        from cleanroom_runtime._warden import _pack

        def test_fill(monkeypatch, request):
            blocks = _pack._blocks

            def blocks_and_stop(*arguments):
                yield from blocks(*arguments)
                request.getfixturevalue("told")("go on")

            monkeypatch.setattr(_pack, "_blocks", blocks_and_stop)
            request.getfixturevalue("postgres_service")
    """)
    session = process_suite.start()
    run_id = process_suite.run_id()
    until(lambda: list(cache.glob("postgres/*/new-*")))
    session.kill()
    gone_within(BOUND, run_id)
    until(lambda: not list(cache.glob("postgres/*/new-*")), BOUND)
    assert not list(cache.glob("postgres/*/content.pack"))
    assert_it_works_now(process_suite)
    assert len(list(cache.glob("postgres/*/content.pack"))) == 1


def test_kill_while_content_is_made(process_suite: Suite, tmp_path: Path) -> None:
    """When the session is killed while it migrates, so is the server it does that in."""
    cache = tmp_path / "cache"
    process_suite.environment["CLEANROOM_CACHE_DIR"] = str(cache)
    conftest = process_suite.folder / "conftest.py"
    conftest.write_text(conftest.read_text() + textwrap.dedent(MIGRATES))
    process_suite.write(HOLDS)
    session = process_suite.start()
    run_id = process_suite.run_id()
    process_suite.said("migrates")
    assert left_of(run_id)
    session.kill()
    gone_within(BOUND, run_id)
    assert len(list(cache.glob("postgres/*/content.pack"))) == 1  # the empty one
    assert_it_works_now(process_suite)
    assert len(list(cache.glob("postgres/*/content.pack"))) == 2


MIGRATES = """
    from cleanroom_plugin_postgres import template

    def migrate(template):
        template.run_script("CREATE TABLE migrated ()")
        say("migrates")
        wait_for("go on")

    postgres_template = template(migrate, inputs=["conftest.py"])
"""


def test_kill_while_the_data_is_copied(process_suite: Suite, tmp_path: Path) -> None:
    """When the session is killed while the data directory is copied, the copy goes too."""
    cache = tmp_path / "cache"
    process_suite.environment["CLEANROOM_CACHE_DIR"] = str(cache)
    assert_it_works_now(process_suite)
    (prepared,) = cache.glob("postgres/*/content.pack")
    content = prepared.read_bytes()
    with_many_files(prepared, 1_000_000)
    for file in process_suite.folder.glob("*.said"):
        file.unlink()
    session = process_suite.start()
    run_id = process_suite.run_id()
    until(lambda: any(data_of(run_id)))
    session.kill()
    gone_within(BOUND, run_id)
    prepared.write_bytes(content)
    assert_it_works_now(process_suite)


def with_many_files(prepared: Path, number: int) -> None:
    """Add empty files to a pack, so that copying it takes seconds."""
    content = prepared.read_bytes()
    head, listed = content.split(b"\n", 1)
    length, whole = map(int, head.split()[3:5])
    folders, files, links = json.loads(listed[:length])
    folders.append(("many", 0o700))
    files += [(f"many/{each}", 0, 0o600) for each in range(number)]
    longer = json.dumps([folders, files, links]).encode()
    whole += len(longer) - length
    rest = longer + listed[length:]
    kind, checksum = b" ".join(head.split()[:3]), zlib.crc32(rest)
    prepared.write_bytes(b"%s %012d %016d %08x\n" % (kind, len(longer), whole, checksum) + rest)


def data_of(run_id: str) -> list[Path]:
    folders = [Path("/dev/shm"), *Path("/tmp").glob("cleanroom-*")]
    # Not in all folders below: one of them may have very many files.
    places = [f"*{run_id}*/postgres", f"*{run_id}*/*/postgres"]
    files = [each.glob(f"{place}/PG_VERSION") for each in folders for place in places]
    return [file for found in files for file in found]


def assert_it_works_now(suite: Suite) -> None:
    """Assert that a second session passes, with the cache as the first one has left it."""
    for file in suite.folder.glob("*.said"):
        file.unlink()
    suite.write(HOLDS)
    suite.let("go on")
    session = suite.start()
    output, _ = session.communicate(timeout=120)
    assert session.returncode == 0, output
    gone_within(BOUND, suite.run_id())


# ---------------------------------------------------------------------- odd servers


def test_kill_of_the_server(process_suite: Suite) -> None:
    """A server that is killed leaves no shared memory, nor anything else when the run ends."""
    process_suite.write(HOLDS + HOLDS.replace("test_holds", "test_after"))
    session = process_suite.start()
    pid = server_pid(process_suite)
    run_id = process_suite.run_id()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_running(pid))
    process_suite.let("go on")
    output, _ = session.communicate(timeout=60)
    assert session.returncode == 1, output
    gone_within(BOUND, run_id)
    assert not segments_of({pid})


def test_a_stopped_server(process_suite: Suite) -> None:
    """A server that was stopped by SIGSTOP, with all its processes, is gone at the end too."""
    process_suite.write(HOLDS)
    session = process_suite.start()
    pid = server_pid(process_suite)
    run_id = process_suite.run_id()
    pids = [pid, *(int(name) for name in children(pid))]
    assert len(pids) > 1
    for each in pids:
        os.kill(each, signal.SIGSTOP)
    session.kill()
    gone_within(BOUND, run_id)
    assert not alive(pids)
    assert not segments_of({pid})


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def server_pid(suite: Suite) -> int:
    handle = suite.said("holds")[0]["handle"]
    assert isinstance(handle, dict)
    return int(handle["metadata"]["pid"])


# --------------------------------------------------------------- the warden itself


@pytest.fixture
def own_folder(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory for the suite's runs, in which no other run sweeps."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="c-") as folder:
        suite.environment["TMPDIR"] = folder
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_kill_of_the_warden(suite: Suite, own_folder: Path) -> None:
    """Who needs a killed warden says that it is gone; the next run removes what is left."""
    suite.write("""
        def test_holds(postgres_db, tell, told):
            tell("holds")
            told("go on")

        def test_next(postgres_db):
            pass

        def test_stop(postgres_service):
            from cleanroom_plugin_postgres import PostgresPlugin
            PostgresPlugin("again").start()
    """)
    session = suite.start()
    suite.said("holds")
    run_id = suite.run_id()
    os.kill(warden_of(run_id), signal.SIGKILL)
    suite.let("go on")
    output, _ = session.communicate(timeout=60)
    assert f"the warden of run {run_id} is gone" in output
    assert "INTERNALERROR" not in output, output
    assert session.returncode == 1, output
    assert_all_is_there(suite, run_id)
    assert_it_works_now(suite)
    gone_within(BOUND, run_id, engine=suite.in_engine)
    until(lambda: not list(own_folder.iterdir()), BOUND)


def test_two_runs_at_once(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A run that begins, works and ends beside another one leaves that one alone."""
    suite.write(HOLDS)
    session = suite.start()
    suite.said("holds")
    run_id = suite.run_id()
    before = left_of(run_id, engine=suite.in_engine)
    folder = tmp_path_factory.mktemp("other")
    (folder / "pyproject.toml").write_text((suite.folder / "pyproject.toml").read_text())
    other = Suite(folder, suite.backend, None)
    (folder / "pyproject.toml").write_text((suite.folder / "pyproject.toml").read_text())
    try:
        assert_it_works_now(other)
        assert other.run_id() != run_id
    finally:
        other.close()
    assert left_of(run_id, engine=suite.in_engine) == before
    suite.let("go on")
    output, _ = session.communicate(timeout=60)
    assert session.returncode == 0, output
    gone_within(BOUND, run_id, engine=suite.in_engine)
