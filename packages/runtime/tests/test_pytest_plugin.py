from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Mapping

import pytest

from tests.leftovers import gone_within

BOX = """
    import socket
    import sys
    from contextlib import contextmanager
    from pathlib import Path
    from textwrap import dedent

    from cleanroom_runtime import BasePlugin, LocalServer, ProcessSpec

    SERVER = '''
    import os, socket, sys
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    print("the box is open", flush=True)
    while True:
        connection, _ = listener.accept()
        print("somebody looks into the box", flush=True)
        connection.sendall(str(os.getpid()).encode())
        connection.close()
    '''

    class BoxPlugin(BasePlugin):
        plugin_type = "box"

        def __init__(self, name="box", *, backend="auto", broken=False):
            super().__init__(name, backend=backend, start_timeout=20)
            self.broken = broken

        def local_servers(self):
            return [LocalServer(Path(sys.executable), "1.0", "this Python")]

        def process(self, server, workspace):
            with Path("starts").open("a") as starts:
                starts.write(f"{self.name}\\n")
            code = "raise SystemExit('no lid')" if self.broken else dedent(SERVER)
            return ProcessSpec([str(server.executable), "-c", code, str(workspace.port)])

        def describe(self, host, port):
            return {"url": f"box://{host}:{port}"}

        def probe(self, endpoint, timeout):
            with socket.create_connection((endpoint["host"], int(endpoint["port"])), timeout) as s:
                assert int(s.recv(100))

        @contextmanager
        def isolate(self, handle):
            self.probe(handle.metadata, 1)
            yield handle
"""
"""A module with a plugin whose service is a process that says its pid to whoever connects."""

BOX_FIXTURES = """
    import pytest

    @pytest.fixture(scope="session")
    def box_service(cleanroom_services):
        return cleanroom_services.start("box")

    @pytest.fixture
    def box(request, cleanroom_services, box_service):
        with cleanroom_services.isolate(box_service, request.node) as handle:
            yield handle
"""

SLOW = """
    import time
    from pathlib import Path

    from box_plugin import BoxPlugin
    from cleanroom import CleanroomEnvironment

    class SlowPlugin(BoxPlugin):
        plugin_type = "slow"

        def __init__(self, name="slow"):
            super().__init__(name)

        def probe(self, endpoint, timeout):
            over = Path("given up")
            while not over.exists():
                if CleanroomEnvironment.given_up():
                    over.touch()
                    raise OSError("not yet")
                time.sleep(0.01)
            super().probe(endpoint, timeout)
"""
"""A module with a box that is not ready before its start was given up once."""

CRATE = """
    from pathlib import Path

    from cleanroom import HealthStatus, ServiceHandle

    class Crate:
        def __init__(self, name):
            self.name = name

        def start(self):
            with Path("starts").open("a") as starts:
                starts.write(f"{self.name}\\n")
            return ServiceHandle("1", self.name, {"url": "crate://here", "backend": "by hand"})

        def stop(self, handle):
            with Path("stops").open("a") as stops:
                stops.write(f"{self.name}\\n")

        def health_check(self, handle):
            return HealthStatus.HEALTHY
"""
"""A module with a plugin that is written against the bare protocol."""

HOOKS = """
    from cleanroom.hooks import hookimpl

    @hookimpl
    def cleanroom_fixture_modules():
        return {module!r}
"""


class Suite:
    """A suite of tests in a folder of its own, with distributions of its own."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.site = pytester.mkdir("site")
        monkeypatch.setenv("PYTHONPATH", str(self.site))
        for name in os.environ:
            if name.startswith("CLEANROOM_") and not name.startswith("CLEANROOM_TEST_"):
                monkeypatch.delenv(name)

    def install(
        self, name: str, *, plugin: str = "", hooks: str = "", modules: Mapping[str, str]
    ) -> None:
        """Install a distribution with an entry point for a plugin, for hooks, or for both."""
        info = self.site / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        groups = {"cleanroom.plugins": plugin, "cleanroom.hooks": hooks}
        lines = [f"[{group}]\n{name} = {value}\n" for group, value in groups.items() if value]
        (info / "entry_points.txt").write_text("".join(lines))
        for module, source in modules.items():
            (self.site / f"{module}.py").write_text(textwrap.dedent(source))

    def install_box(self) -> None:
        """Install the plugin `box` with its fixtures `box_service` and `box`."""
        hooks = HOOKS.format(module="box_fixtures")
        modules = {"box_plugin": BOX, "box_fixtures": BOX_FIXTURES, "box_hooks": hooks}
        self.install("box", plugin="box_plugin:BoxPlugin", hooks="box_hooks", modules=modules)

    def install_crate(self) -> None:
        """Install the plugin `crate`."""
        self.install("crate", plugin="crate_plugin:Crate", modules={"crate_plugin": CRATE})

    def declare(self, text: str) -> None:
        """Write `cleanroom.toml`."""
        (self.path / "cleanroom.toml").write_text(textwrap.dedent(text))

    def run(self, *arguments: str) -> pytest.RunResult:
        """Run pytest in a process of its own, warnings being errors."""
        return self.pytester.runpytest_subprocess(
            "-p", "no:randomly", "-p", "no:cacheprovider", "-W", "error", *arguments
        )

    def lines_of(self, file: str) -> list[str]:
        """The lines of a file that tests or services have written, sorted."""
        path = self.path / file
        return sorted(path.read_text().splitlines()) if path.exists() else []

    @property
    def starts(self) -> list[str]:
        """The names of the services that were started."""
        return self.lines_of("starts")


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """A suite of tests to run with pytest."""
    return Suite(pytester, monkeypatch)


def alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ------------------------------------------------------------------ no test asks


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_nothing_happens_when_no_test_asks(
    suite: Suite, workers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose tests want no service starts nothing, no thread, and imports nothing heavy."""
    suite.install_box()
    folder = suite.pytester.mkdir("tmp")
    monkeypatch.setenv("TMPDIR", str(folder))
    suite.pytester.makeconftest(
        """
        import atexit, os, sys

        HEAVY = (
            "psycopg", "testcontainers", "docker", "requests", "opentelemetry",
            "cleanroom_runtime._plugin", "cleanroom_runtime._shared", "box_plugin",
            "cleanroom_plugin_postgres._plugin", "cleanroom_plugin_postgres._database",
        )

        def look():
            with open("modules", "a") as file:
                file.write("looked\\n")
                file.writelines(f"{name}\\n" for name in HEAVY if name in sys.modules)

        atexit.register(look)
        """
    )
    suite.pytester.makepyfile(
        """
        import threading

        def test_nothing():
            names = {thread.name for thread in threading.enumerate()}
            assert not [name for name in names if "cleanroom" in name]
        """
    )
    result = suite.run(*workers)
    result.assert_outcomes(passed=1)
    assert set(suite.lines_of("modules")) == {"looked"}
    assert not [path for path in folder.iterdir() if path.name.startswith("cleanroom")]
    result.stdout.no_fnmatch_line("cleanroom: *")
    result.stdout.no_fnmatch_line("*- cleanroom -*")


def test_what_is_imported_when_no_test_asks(suite: Suite) -> None:
    """A run whose tests want no service imports of ours only what finds and makes the fixtures.

    And what looks for a note of an earlier run, which had services.
    """
    suite.install_box()
    suite.pytester.makeconftest(
        """
        import sys

        def pytest_unconfigure():
            ours = ("cleanroom", "box_")
            print(*(name for name in sys.modules if name.startswith(ours)), file=open("all", "w"))
        """
    )
    suite.pytester.makepyfile("def test_nothing(): pass")
    suite.run().assert_outcomes(passed=1)
    names = set((suite.path / "all").read_text().split())
    plugins = {name for name in names if name.startswith("cleanroom_plugin_")}
    assert names - plugins == {
        "cleanroom", "cleanroom._errors", "cleanroom._secrets", "cleanroom.discovery",
        "cleanroom.hooks", "cleanroom_runtime", "cleanroom_runtime._caches",
        "cleanroom_runtime._making", "cleanroom_runtime._sessions", "cleanroom_runtime.fixtures",
        "cleanroom_runtime.pytest_plugin", "box_fixtures", "box_hooks",
    }  # fmt: skip
    modules = {name.partition(".")[2] for name in plugins}
    assert modules <= {"", "_hooks", "fixtures", "_fixtures"}


def test_declared_services_that_no_test_asks_for_cost_nothing(suite: Suite) -> None:
    """A declaration alone imports no plugin: the header is about what the tests will use."""
    suite.install("box", plugin="box_plugin:BoxPlugin", modules={"box_plugin": "raise SystemExit"})
    suite.declare("[services.box]\nplugin = 'box'")
    suite.pytester.makepyfile(
        """
        import sys

        def test_nothing():
            assert "box_plugin" not in sys.modules
            assert "cleanroom_runtime._plugin" not in sys.modules
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*box*")


# -------------------------------------------------------------- header and summary


def test_header_says_how_and_why(suite: Suite) -> None:
    """The service that tests ask for is named with its backend and the reason before they run."""
    suite.install_box()
    suite.pytester.makepyfile("def test_it(box): pass")
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["collected 1 item", "cleanroom: box: process (no image was named*1.0 from this Python)"]
    )


def test_summary_says_what_how_why_and_how_long(suite: Suite) -> None:
    """The end of the run names service, backend, version, seconds and reason."""
    suite.install_box()
    suite.pytester.makepyfile("def test_it(box): pass")
    result = suite.run()
    lines = [line for line in result.outlines if line.startswith("box: ")]
    assert len(lines) == 1
    assert re.fullmatch(
        r"box: process, version 1\.0, ready in \d+\.\d\d s "
        r"\(no image was named\b.* 1\.0 from this Python\)",
        lines[0],
    ), lines[0]


def test_quiet_run_has_no_header(suite: Suite) -> None:
    """`-q` keeps the choice of the backend out of the output, but not the summary."""
    suite.install_box()
    suite.pytester.makepyfile("def test_it(box): pass")
    result = suite.run("-q")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("cleanroom: *")
    result.stdout.fnmatch_lines(["box: process, *"])


def test_header_says_that_a_service_cannot_start(suite: Suite) -> None:
    """A service that no backend can serve is announced as such, and the run goes on."""
    suite.install_box()
    suite.declare("[services.box]\nplugin = 'box'\nbackend = 'container'")
    suite.pytester.makepyfile("def test_it(box): pass\ndef test_other(): pass")
    result = suite.run()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "cleanroom: box: cannot be started: * was asked for, but no image was named",
            "box: failed to start: * was asked for, but no image was named",
        ]
    )


@pytest.mark.slow
def test_controller_names_what_is_declared(suite: Suite) -> None:
    """Under xdist, where the workers collect, the header names the declared services."""
    suite.install_box()
    suite.declare("[services.first]\nplugin = 'box'\n[services.second]\nplugin = 'box'")
    suite.pytester.makepyfile("def test_it(cleanroom_env): cleanroom_env['second']")
    result = suite.run("-n", "2")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["cleanroom: first: process (*this Python)", "cleanroom: second: process (*this Python)"]
    )
    assert suite.starts == ["second"]


def test_wrong_declaration_breaks_only_who_needs_it(suite: Suite) -> None:
    """A mistake in the declarations is in the header, and fails the tests that use services."""
    suite.install_box()
    suite.declare("[services.box]\nplugin = 'box'\nsise = 3")
    suite.pytester.makepyfile("def test_it(box): pass\ndef test_other(): pass")
    result = suite.run()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["cleanroom: *cleanroom.toml [[]services.box[]] sise: unknown key", "E *sise: unknown key"]
    )


# ------------------------------------------------------------- one run for all workers


def test_workers_share_one_service(suite: Suite) -> None:
    """Under xdist one worker starts the service, the others use it, and it ends with the run."""
    suite.install_box()
    suite.pytester.makepyfile(
        """
        import socket
        import pytest

        @pytest.mark.parametrize("number", range(8))
        def test_it(box, number, worker_id):
            with socket.create_connection((box.host, box.port)) as connection:
                pid = connection.recv(100).decode()
            with open("pids", "a") as file:
                file.write(f"{pid} {worker_id}\\n")
        """
    )
    result = suite.run("-n", "2", "--dist", "each", "-k", "0 or 1")
    result.assert_outcomes(passed=4)
    pids, workers = zip(*(line.split() for line in suite.lines_of("pids")), strict=True)
    assert set(workers) == {"gw0", "gw1"}
    assert len(set(pids)) == 1
    assert suite.starts == ["box"]
    assert not alive(int(pids[0]))
    assert len([line for line in result.outlines if line.startswith("box: process")]) == 1


@pytest.mark.slow
def test_failed_start_is_told_to_every_worker(suite: Suite) -> None:
    """A service that fails to start is tried once; each worker's tests fail with the same error."""
    suite.install_box()
    suite.declare("[services.box]\nplugin = 'box'\nbroken = true")
    suite.pytester.makepyfile("def test_it(box): pass")
    result = suite.run("-n", "2", "--dist", "each")
    result.assert_outcomes(errors=2)
    assert suite.starts == ["box"]
    message = "ProcessError: service 'box' (process): the server ended while it was starting"
    assert len([line for line in result.outlines if message in line and line[0] == "E"]) == 2
    assert len([line for line in result.outlines if re.fullmatch(r"E +no lid", line)]) == 2
    result.stdout.fnmatch_lines(["box: failed to start: the server ended while it was starting*"])


@pytest.mark.parametrize("workers", [[], ["-n", "2", "--dist", "loadfile"]])
def test_service_beside_one_that_fails_is_started_for_who_wants_it(
    suite: Suite, workers: list[str]
) -> None:
    """A start that was given up because of another service is no failure of the service."""
    suite.install_box()
    suite.install("slow", plugin="slow_plugin:SlowPlugin", modules={"slow_plugin": SLOW})
    suite.declare("[services.db]\nplugin = 'slow'\n[services.bad]\nplugin = 'box'\nbroken = true\n")
    suite.pytester.makepyfile(
        test_a="def test_all(cleanroom_env): cleanroom_env.start_all()",
        test_b="""
        import time
        from pathlib import Path

        def test_db(cleanroom_env):
            while not Path("given up").exists():
                time.sleep(0.01)
            cleanroom_env["db"]
        """,
    )
    result = suite.run(*workers)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["db: process, *"])


@pytest.mark.slow
def test_bare_plugin_runs_once_per_worker(suite: Suite) -> None:
    """A plugin written by hand is started and stopped by each worker; header and summary say so."""
    suite.install_crate()
    suite.declare("[services.crate]\nplugin = 'crate'")
    suite.pytester.makepyfile(
        "def test_it(cleanroom_env): assert cleanroom_env['crate'].url == 'crate://here'"
    )
    result = suite.run("-n", "2", "--dist", "each")
    result.assert_outcomes(passed=2)
    assert suite.starts == suite.lines_of("stops") == ["crate", "crate"]
    result.stdout.fnmatch_lines(
        [
            "cleanroom: crate: once per worker: *",
            "crate: by hand, on each of gw0, gw1, ready in * s",
        ]
    )


def test_bare_plugin_without_workers(suite: Suite) -> None:
    """A plugin written by hand needs no run: it is started and stopped, and the summary has it."""
    suite.install_crate()
    suite.declare("[services.crate]\nplugin = 'crate'")
    suite.pytester.makepyfile("def test_it(cleanroom_env): cleanroom_env['crate']")
    result = suite.run()
    result.assert_outcomes(passed=1)
    assert suite.starts == suite.lines_of("stops") == ["crate"]
    result.stdout.fnmatch_lines(
        ["cleanroom: crate: once per worker: *", "crate: by hand, ready in * s"]
    )


@pytest.mark.slow
def test_dependent_service_runs_once_per_worker(suite: Suite) -> None:
    """What depends on others is each worker's own; what it depends on is shared."""
    suite.install_box()
    suite.declare(
        """
        [services.store]
        plugin = "box"
        default = true
        [services.api]
        plugin = "box"
        depends_on = ["store"]
        """
    )
    suite.pytester.makepyfile("def test_it(cleanroom_env): cleanroom_env['api']")
    result = suite.run("-n", "2", "--dist", "each")
    result.assert_outcomes(passed=2)
    assert suite.starts == ["api", "api", "store"]
    result.stdout.fnmatch_lines(["cleanroom: api: once per worker, after store"])
    result.stdout.fnmatch_lines(
        ["api: process, version 1.0, on each of gw0, gw1, ready in * s (*this Python)"]
    )


# ---------------------------------------------------------- which service is meant


def test_only_declared_service_is_the_one(suite: Suite) -> None:
    """The fixtures of a plugin serve the only declared service of that plugin."""
    suite.install_box()
    suite.declare("[services.mine]\nplugin = 'box'")
    suite.pytester.makepyfile("def test_it(box): assert box.service_name == 'mine'")
    suite.run().assert_outcomes(passed=1)


def test_default_service_is_the_one(suite: Suite) -> None:
    """Of several declared services the fixtures serve the one marked as the default."""
    suite.install_box()
    suite.declare(
        "[services.one]\nplugin = 'box'\n[services.two]\nplugin = 'box'\ndefault = true\n"
    )
    suite.pytester.makepyfile("def test_it(box): assert box.service_name == 'two'")
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["cleanroom: two: process *"])
    result.stdout.no_fnmatch_line("cleanroom: one: *")


def test_several_services_and_no_default(suite: Suite) -> None:
    """With several declared and no default, the error names them and says what to write."""
    suite.install_box()
    suite.declare("[services.one]\nplugin = 'box'\n[services.two]\nplugin = 'box'")
    suite.pytester.makepyfile("def test_it(box): pass")
    result = suite.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "E *2 services of plugin 'box' are declared (one, two), and none is the default",
            "E *mark one with default = true*",
        ]
    )
    assert suite.starts == []


# --------------------------------------------------------------------- broken plugins


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_broken_fixtures_break_only_their_tests(suite: Suite, fault: str, said: str) -> None:
    """Fixtures that cannot be imported fail the tests that ask for them, and those say why."""
    suite.install_box()
    hooks = HOOKS.format(module="torn_fixtures")
    suite.install("torn", hooks="torn_hooks", modules={"torn_hooks": hooks, "torn_fixtures": fault})
    suite.pytester.makepyfile("def test_it(box): pass\ndef test_torn(torn): pass")
    result = suite.run()
    result.assert_outcomes(passed=1, errors=1)
    reason = f"the fixtures in torn_fixtures cannot be used: {said}"
    result.stdout.fnmatch_lines(
        [
            f"cleanroom: {reason}",
            "E       fixture 'torn' not found",
            "*- cleanroom: what could not be loaded -*",
            reason,
        ]
    )


def test_fixtures_that_pytest_refuses_leave_nothing(suite: Suite) -> None:
    """A module of fixtures with a malformed pytest hook is left out whole."""
    suite.install_box()
    hooks = HOOKS.format(module="torn_fixtures")
    source = "def pytest_runtest_setup(nonsense): raise AssertionError"
    modules = {"torn_hooks": hooks, "torn_fixtures": source}
    suite.install("torn", hooks="torn_hooks", modules=modules)
    suite.pytester.makepyfile("def test_it(box): pass")
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["cleanroom: the fixtures in torn_fixtures cannot be used: *"])


def test_broken_hooks_break_only_their_tests(suite: Suite) -> None:
    """Hooks that cannot be imported are named, with distribution and version, and passed over."""
    suite.install_box()
    suite.install("torn", hooks="torn_hooks", modules={"torn_hooks": "1 / 0"})
    suite.pytester.makepyfile("def test_it(box): pass\ndef test_torn(torn): pass")
    result = suite.run("-n", "1")
    result.assert_outcomes(passed=1, errors=1)
    reason = "plugin 'torn': failed to load: ZeroDivisionError: *(torn_hooks, from torn 1.0)"
    result.stdout.fnmatch_lines([f"cleanroom: {reason}", "E *fixture 'torn' not found", reason])


def test_broken_plugin_breaks_only_its_tests(suite: Suite) -> None:
    """A plugin that cannot be imported fails the tests of its service alone."""
    suite.install_box()
    suite.install("torn", plugin="torn_plugin:Torn", modules={"torn_plugin": "import nowhere"})
    suite.declare("[services.box]\nplugin = 'box'\n[services.torn]\nplugin = 'torn'")
    suite.pytester.makepyfile(
        "def test_it(box): pass\ndef test_torn(cleanroom_env): cleanroom_env['torn']"
    )
    result = suite.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "cleanroom: torn: cannot be started: failed to load: ModuleNotFoundError: *nowhere*",
            "E *failed to load: ModuleNotFoundError: *(torn_plugin:Torn, from torn 1.0)",
        ]
    )


def test_disabled_plugin(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin that is switched off has no fixtures, and the test that asks for one is told why."""
    suite.install_box()
    monkeypatch.setenv("CLEANROOM_DISABLE_PLUGINS", "box")
    suite.pytester.makepyfile("def test_it(box): pass\ndef test_other(cleanroom_env): pass")
    result = suite.run()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["E *fixture 'box' not found", "CLEANROOM_DISABLE_PLUGINS switches off box of box"]
    )


def test_switching_the_whole_plugin_off(suite: Suite) -> None:
    """`-p no:cleanroom` leaves nothing of it."""
    suite.install_box()
    suite.pytester.makepyfile("def test_it(box): pass\ndef test_other(): pass")
    result = suite.run("-p", "no:cleanroom")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.no_fnmatch_line("cleanroom*")


# ---------------------------------------------------------------------------- reports


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "xdist"])
def test_failed_report_has_the_log(suite: Suite, workers: list[str]) -> None:
    """The report of a failed test has the last lines of its services' logs, also from a worker."""
    suite.install_box()
    suite.pytester.makepyfile("def test_it(box): raise AssertionError('so there')")
    result = suite.run(*workers)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*- cleanroom: log of box -*", "the box is open", "somebody looks into the box"]
    )


def test_reports_of_others_have_no_log(suite: Suite) -> None:
    """Neither a test that passed nor one that failed without a service has a log in its report."""
    suite.install_box()
    suite.pytester.makepyfile("def test_it(box): pass\ndef test_other(): raise AssertionError")
    result = suite.run("-rA")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.no_fnmatch_line("*log of box*")


def test_service_asked_for_while_running(suite: Suite) -> None:
    """A test that asks for its fixture by name as it runs has the log in its report as well."""
    suite.install_box()
    suite.pytester.makepyfile(
        "def test_it(request):\n    request.getfixturevalue('box')\n    raise AssertionError"
    )
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*- cleanroom: log of box -*", "the box is open"])


def test_unreadable_log_does_not_break_the_report(suite: Suite) -> None:
    """Where a plugin fails to read its log, the report says that in its place."""
    suite.install_crate()
    suite.declare("[services.crate]\nplugin = 'crate'")
    suite.pytester.makeconftest(
        """
        import pytest, crate_plugin

        def logs(self, handle, tail=100):
            raise OSError("the ink is dry")

        crate_plugin.Crate.logs = logs
        """
    )
    suite.pytester.makepyfile(
        "def test_it(cleanroom_env):\n    cleanroom_env['crate']\n    raise AssertionError"
    )
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["(its log cannot be read: OSError('the ink is dry'))"])


# ------------------------------------------------------------- ended from the outside


def test_service_that_ended_is_told_from_a_failing_test(suite: Suite) -> None:
    """Once its service was killed, a test fails with an error that says so and has the log."""
    suite.install_box()
    suite.pytester.makepyfile(
        """
        import os, signal

        def test_kill(box):
            os.kill(int(box.metadata["pid"]), signal.SIGKILL)

        def test_next(box):
            pass

        def test_other():
            pass
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "E *ServiceError: service 'box' (process): it stopped working during the session: *",
            "E *last lines of its log:",
            "E *the box is open",
        ]
    )


def test_error_of_a_slice_of_a_healthy_service_is_left_as_it_is(suite: Suite) -> None:
    """An error in isolating is not blamed on the service while that is healthy."""
    suite.install_box()
    suite.pytester.makeconftest(
        """
        import box_plugin

        def isolate(self, handle):
            raise LookupError("no slice left")

        box_plugin.BoxPlugin.isolate = isolate
        """
    )
    suite.pytester.makepyfile("def test_it(box): pass")
    result = suite.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E *LookupError: no slice left"])
    result.stdout.no_fnmatch_line("*stopped working*")


def test_run_without_its_warden_ends_with_a_summary(suite: Suite) -> None:
    """When the warden was killed, the run ends in order, and the summary says what is wrong.

    What it has left is removed by the next.
    """
    suite.install_box()
    suite.pytester.makepyfile(
        """
        import os, signal
        from pathlib import Path

        def test_kill(box):
            (status,) = Path(f"/proc/{box.metadata['pid']}/status").read_text().split("PPid:")[1:]
            os.kill(int(status.split()[0]), signal.SIGKILL)
            os.kill(int(box.metadata["pid"]), signal.SIGKILL)
        """
    )
    result = suite.run()
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*- cleanroom -*", "the warden of run r* is gone*"])
    (run_id,) = re.findall(r"the warden of run (\w+) is gone", result.stdout.str())
    suite.pytester.makepyfile("def test_next(box): pass")
    suite.run().assert_outcomes(passed=1)
    gone_within(5, run_id)


# ------------------------------------------------------------------------ nested runs


def test_nested_runs_do_not_disturb_the_outer_one(suite: Suite) -> None:
    """A run inside a test, in the same process, has services of its own that end with it."""
    suite.install_box()
    suite.pytester.makepyfile(
        """
        import os
        import socket

        pytest_plugins = "pytester"

        def pid_of(box):
            with socket.create_connection((box.host, box.port)) as connection:
                return int(connection.recv(100))

        def test_before(box):
            assert pid_of(box) == int(box.metadata["pid"])

        def test_nested(pytester, box):
            pytester.makepyfile(
                '''
                def test_inner(box):
                    with open("inner", "w") as file:
                        file.write(box.metadata["pid"])
                '''
            )
            result = pytester.runpytest_inprocess("-p", "no:randomly", "-p", "no:xdist")
            result.assert_outcomes(passed=1)
            result.stdout.fnmatch_lines(["box: process, *"])
            inner = int((pytester.path / "inner").read_text())
            assert inner != int(box.metadata["pid"])
            try:
                os.kill(inner, 0)
            except ProcessLookupError:
                pass
            else:
                raise AssertionError("the service of the nested run is still there")

        def test_after(box):
            assert pid_of(box) == int(box.metadata["pid"])
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=3)
    assert len([line for line in result.outlines if line.startswith("box: process")]) == 1


def test_this_process_runs_a_nested_run(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in this very process leaves what this process takes part in as it was."""
    from cleanroom_runtime._run import joined_run

    before = joined_run()
    suite.pytester.makepyfile(
        "def test_it(cleanroom_env):\n"
        "    from cleanroom_runtime import current_run\n"
        "    assert current_run().new_service_id()"
    )
    result = suite.pytester.runpytest_inprocess("-p", "no:randomly")
    result.assert_outcomes(passed=1)
    assert joined_run() is before


def test_a_nested_run_has_the_first_service(suite: Suite) -> None:
    """A session inside another has a run of its own, though the first service is its."""
    suite.pytester.makeconftest("pytest_plugins = ['pytester']")
    suite.pytester.makepyfile(
        """
        import sys

        INNER = "def test_it(): from cleanroom_runtime import current_run; print(current_run().id)"

        def test_it(pytester):
            pytester.makepyfile("def test_nothing(): pass")
            pytester.runpytest_inprocess().assert_outcomes(passed=1)
            assert "cleanroom_runtime._run" not in sys.modules
            pytester.makepyfile(INNER)
            inner = pytester.runpytest_inprocess("-s", "-q")
            inner.assert_outcomes(passed=1)
            from cleanroom_runtime import current_run
            assert current_run().joined
            assert current_run().id not in inner.stdout.str()
        """
    )
    suite.run().assert_outcomes(passed=1)


def test_a_child_that_forks_takes_part_in_the_run(suite: Suite) -> None:
    """The run of the session is the same in children that fork before the first service."""
    suite.pytester.makepyfile(
        """
        import os, sys

        def run():
            from cleanroom_runtime import current_run
            return f"{current_run().address}\\n".encode()

        def test_it():
            assert "cleanroom_runtime._run" not in sys.modules
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.write(writer, run())
                os._exit(0)
            os.close(writer)
            with open(reader, "rb") as file:
                assert file.read() == run()
            assert os.waitpid(child, 0)[1] == 0
        """
    )
    suite.run().assert_outcomes(passed=1)


# ------------------------------------------------------------------------ kept runs


def test_stopping_a_run_that_is_not_there(suite: Suite) -> None:
    """`python -m cleanroom_runtime stop` says that there is no such run, and fails."""
    result = suite.pytester.run(sys.executable, "-m", "cleanroom_runtime", "stop", "r00000000")
    assert result.ret == 1
    result.stderr.fnmatch_lines(["no run 'r00000000' is alive"])
