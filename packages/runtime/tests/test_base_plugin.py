"""The base class of plugins: what it refuses, how it starts, and what it makes of errors."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from cleanroom import (
    CleanroomEnvironment,
    CleanroomError,
    ConfigurationError,
    HealthStatus,
    InternalError,
    ProcessError,
    ServiceError,
    ServiceHandle,
    StartTimeoutError,
    ValidationError,
)
from cleanroom_runtime import (
    BasePlugin,
    LocalServer,
    ProcessSpec,
    Workspace,
    _check,
    _process,
    current_run,
)
from cleanroom_runtime._choose import Choice
from cleanroom_runtime._ready import answers_within, wait_ready
from cleanroom_runtime._run import Run
from cleanroom_runtime._shared import share

ECHO = """
import socket, sys
print("about to listen", flush=True)
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        server.accept()[0].close()
"""


class EchoPlugin(BasePlugin):
    """A server in a few lines of Python, which hangs up on everybody: it is there."""

    plugin_type: ClassVar[str] = "echo"
    program = ECHO

    def local_servers(self) -> list[LocalServer]:
        return [LocalServer(Path(sys.executable), "3.1", "this Python")]

    def process(self, server: LocalServer, workspace: Workspace) -> ProcessSpec:
        return ProcessSpec([str(server.executable), "-c", self.program, str(workspace.port)])

    def probe(self, endpoint: Mapping[str, str], timeout: float) -> None:
        socket.create_connection((endpoint["host"], int(endpoint["port"])), timeout).close()

    def describe(self, host: str, port: int) -> Mapping[str, str]:
        return {"url": f"echo://{host}:{port}/"}


@pytest.fixture
def ids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the services that this test has tried to start."""
    ids: list[str] = []
    new_id = Run.new_service_id
    monkeypatch.setattr(Run, "new_service_id", lambda run: ids.append(new_id(run)) or ids[-1])
    return ids


def taken_port() -> socket.socket:
    """A port that nobody else can have."""
    other = socket.socket()
    other.bind(("127.0.0.1", 0))
    return other


def gone(ids: list[str]) -> bool:
    statuses = [current_run().request("status", id=one) for one in ids]
    return bool(ids) and not any(status["running"] for status in statuses)


# -------------------------------------------------------------------- starting


def test_three_methods_make_a_service() -> None:
    """A plugin that says what to run, where it is and how to ask it, is a whole service."""
    plugin = EchoPlugin("echo")
    handle = plugin.start()
    facts = handle.metadata
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    assert handle.url == f"echo://127.0.0.1:{handle.port}/"
    assert (facts["version"], facts["executable"]) == ("3.1", sys.executable)
    assert "about to listen" in plugin.logs(handle)
    plugin.stop(handle)
    assert plugin.health_check(handle) is HealthStatus.UNHEALTHY


def test_a_shared_start_looks_ahead(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be found out without the run is, before the run is asked who starts a service.

    It decides nothing: an error there is met again by the start, which all workers hear of.
    """
    steps: list[str] = []

    class Undecided(EchoPlugin):
        def choose(self) -> Choice:
            steps.append("choose")
            raise ConfigurationError("which one?")

    request = run.request

    def noted(op: str, **fields: object) -> dict[str, object]:
        steps.append(op)
        return request(op, **fields)

    monkeypatch.setattr(run, "request", noted)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="which one"):
            share(Undecided("echo"), run).start()
    assert steps == ["choose", "claim", "choose", "settle", "choose", "claim"]


class CountedPlugin(EchoPlugin):
    """Counts how often its service was asked before it answered."""

    program = f"import time; time.sleep(0.3)\n{ECHO}"
    asked: ClassVar[int]

    def probe(self, endpoint: Mapping[str, str], timeout: float) -> None:
        type(self).asked += 1
        super().probe(endpoint, timeout)


@pytest.mark.parametrize("probes_port", [False, True])
def test_where_the_port_tells_it_is_asked_once(probes_port: bool) -> None:
    """Who asks a process at its port puts one question, when it listens there; others keep asking.

    A service may be reached in another way than by its port, which then tells nothing.
    """

    class Asking(CountedPlugin):
        asked = 0

    Asking.probes_port = probes_port
    plugin = Asking()
    plugin.stop(plugin.start())
    assert (Asking.asked == 1) is probes_port


def test_importing_what_asks_does_not_count_to_the_bound() -> None:
    """A process that asks for the first time, and imports a library for it, sees the truth."""

    class Dear(EchoPlugin):
        imported: ClassVar[bool] = False

        def warm_up(self) -> None:
            if not self.imported:
                time.sleep(0.5)
            type(self).imported = True

        def probe(self, endpoint: Mapping[str, str], timeout: float) -> None:
            self.warm_up()
            super().probe(endpoint, timeout)

    plugin = Dear("echo", health_timeout=0.4)
    handle = plugin.start()
    Dear.imported = False  # as it is in another process
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    plugin.stop(handle)


def test_a_port_that_was_taken_is_not_the_end(
    monkeypatch: pytest.MonkeyPatch, ids: list[str]
) -> None:
    """A server whose port somebody took in the meantime is started again, with another port."""
    free_port = _process.free_port
    with taken_port() as other:
        offered = iter([other.getsockname()[1]])
        monkeypatch.setattr(_process, "free_port", lambda: next(offered, None) or free_port())
        plugin = EchoPlugin("echo")
        handle = plugin.start()
        assert handle.port != other.getsockname()[1]
    assert len(ids) == 2
    plugin.stop(handle)
    assert gone(ids)


def test_a_stranger_does_not_answer_for_a_server_that_has_ended(
    monkeypatch: pytest.MonkeyPatch, ids: list[str]
) -> None:
    """The answer of another program at the port is not taken for that of a server that died."""
    free_port = _process.free_port

    class Late(EchoPlugin):
        def probe(self, endpoint: Mapping[str, str], timeout: float) -> None:
            """Ask who is there once the server that found its port taken has ended."""
            if int(endpoint["port"]) == taken:
                wait_ready(lambda _: has_ended(), lambda: None, time.monotonic() + 30, 30)
            super().probe(endpoint, timeout)

    def has_ended() -> None:
        assert not current_run().request("status", id=ids[-1])["running"]

    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        offered = iter([taken])
        monkeypatch.setattr(_process, "free_port", lambda: next(offered, None) or free_port())
        plugin = Late("echo")
        handle = plugin.start()
        assert handle.port != taken
    plugin.stop(handle)
    assert gone(ids)


def test_ports_that_are_always_taken(monkeypatch: pytest.MonkeyPatch, ids: list[str]) -> None:
    """After several ports the error says what the server wrote."""
    with taken_port() as other:
        monkeypatch.setattr(_process, "free_port", lambda: other.getsockname()[1])
        with pytest.raises(ProcessError) as caught:
            EchoPlugin("echo").start()
    assert "Address already in use" in str(caught.value.log_tail)
    assert 1 < len(ids) < 10
    assert gone(ids)


def test_a_server_that_is_never_ready(ids: list[str]) -> None:
    """When time is up the error says what went wrong last, shows the log, and all is stopped."""

    class Deaf(EchoPlugin):
        program = "import time; print('thinking', flush=True); time.sleep(60)"

    began = time.monotonic()
    with pytest.raises(StartTimeoutError) as caught:
        Deaf("echo", start_timeout=3).start()
    assert time.monotonic() - began < 20
    assert caught.value.message.startswith("not ready after 3 s; the last error was Connection")
    assert caught.value.log_tail == "thinking"
    assert "start_timeout" in str(caught.value.hint)
    assert (caught.value.service, caught.value.backend) == ("echo", "process")
    assert gone(ids)


def test_a_start_that_is_given_up(ids: list[str]) -> None:
    """Where another service fails, one that is not ready yet is waited for no longer."""

    class Deaf(EchoPlugin):
        program = "import time; print('thinking', flush=True); time.sleep(60)"

    class Dying(EchoPlugin):
        program = "import sys; sys.exit(7)"

    env = CleanroomEnvironment().register(Deaf("deaf")).register(Dying("dying"))
    began = time.monotonic()
    with pytest.raises(ProcessError, match="exit code 7") as caught:
        env.start_all()
    assert time.monotonic() - began < 20
    assert caught.value.service == "dying"
    assert "'deaf' failed as well" in "".join(caught.value.__notes__)
    assert gone(ids)


def test_a_server_that_ends(ids: list[str]) -> None:
    """A server that ends is noticed at once, with its exit code and what it wrote."""

    class Dying(EchoPlugin):
        program = "import sys; print('cannot go on'); sys.exit(7)"

    began = time.monotonic()
    with pytest.raises(ProcessError) as caught:
        Dying("echo").start()
    assert time.monotonic() - began < 20
    assert caught.value.message == "the server ended while it was starting, with exit code 7"
    assert caught.value.log_tail == "cannot go on"
    assert gone(ids)


def test_a_server_that_cannot_be_executed(tmp_path: Path, ids: list[str]) -> None:
    """A program that is none is an error that names it."""
    program = tmp_path / "server"
    program.write_bytes(b"\x7fELF, but no more")
    program.chmod(0o755)

    class Broken(EchoPlugin):
        def local_servers(self) -> list[LocalServer]:
            return [LocalServer(program, "1.0", "the test")]

    with pytest.raises(ProcessError) as caught:
        Broken("echo").start()
    assert f"{program} could not be executed: Exec format error" in caught.value.message
    assert gone(ids) or not ids


@pytest.mark.parametrize("method", ["warm_up", "prepare", "describe"])
def test_what_a_plugin_raises_is_an_error_of_ours(method: str, ids: list[str]) -> None:
    """Whatever goes wrong in a plugin, start raises our error, from the cause, and stops all."""

    def fail(*_: object) -> None:
        raise LookupError("the plugin's fault")

    plugin = type("Faulty", (EchoPlugin,), {method: fail})("echo")
    with pytest.raises(ServiceError, match="LookupError: the plugin's fault") as caught:
        plugin.start()
    assert isinstance(caught.value.__cause__, LookupError)
    assert (caught.value.service, caught.value.backend) == ("echo", "process")
    assert gone(ids) or method == "describe"


def test_time_starts_with_the_launch() -> None:
    """What precedes the launch, such as getting an image, does not use up the start timeout."""

    class Slow(EchoPlugin):
        def process(self, server: LocalServer, workspace: Workspace) -> ProcessSpec:
            time.sleep(5.5)
            return super().process(server, workspace)

    plugin = Slow("echo", start_timeout=5)
    plugin.stop(plugin.start())


def test_a_plugin_without_the_method_for_a_backend(tmp_path: Path) -> None:
    """A backend that a plugin does not know is an error that says so."""

    class Nothing(EchoPlugin):
        process = BasePlugin.process

    with pytest.raises(ServiceError, match="cannot run as a process"):
        Nothing("echo").start()
    with pytest.raises(ServiceError, match="cannot use an external server"):
        EchoPlugin("echo", url="http://localhost:1").start()


# ----------------------------------------------------------------- the arguments


def test_a_url_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL of a server may stand in the environment, under the service's name in capitals.

    It wins over code and configuration, as `CLEANROOM_BACKEND` does.
    """
    monkeypatch.setenv("CLEANROOM_MY_ECHO_URL", "http://elsewhere:8000")
    choice = EchoPlugin("my-echo").choose()
    assert (choice.backend, choice.url) == ("external", "http://elsewhere:8000")
    assert choice.reason == "CLEANROOM_MY_ECHO_URL is set"
    assert EchoPlugin("my-echo", url="http://here:1").choose() == choice
    monkeypatch.setenv("CLEANROOM_MY_ECHO_URL", "")
    assert EchoPlugin("my-echo").choose().backend == "process"


def test_a_malformed_url_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL in the environment that is none is a wrong setting; the variable is named."""
    monkeypatch.setenv("CLEANROOM_ECHO_URL", "http://user:hidden@")
    with pytest.raises(ConfigurationError, match="CLEANROOM_ECHO_URL is 'http://") as caught:
        EchoPlugin("echo").choose()
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("value", [0, 65536, -1, "80", True, None, 1.5])
def test_ports_out_of_range(value: object) -> None:
    """A port is a number from 1 to 65535."""
    with pytest.raises(ValidationError, match="port is ") as caught:
        _check.port("port", value)
    assert repr(value) in caught.value.message
    assert _check.port("port", 65535) == 65535


@pytest.mark.parametrize("value", ["", "1A", "A-B", "A=B", None])
def test_names_of_variables(value: object) -> None:
    """The name of a variable is one a shell would take."""
    with pytest.raises(ValidationError, match="key is ") as caught:
        _check.variable("key", value)
    assert repr(value) in caught.value.message
    assert _check.variable("key", "_a1") == "_a1"


def test_a_change_of_what_is_not_there() -> None:
    """A plugin's author who misspells an attribute is told."""
    with pytest.raises(InternalError, match="EchoPlugin has no '_nmae'"):
        EchoPlugin("echo")._with(_nmae="x")


def test_kill_refuses_what_somebody_else_runs() -> None:
    """A server that somebody else runs is not ours to kill."""
    handle = ServiceHandle("r1-s1", "echo", {"backend": "external"})
    with pytest.raises(CleanroomError, match="somebody else"):
        EchoPlugin("echo").kill(handle)


# ---------------------------------------------------------------------- waiting


def questions(answers: list[Exception | None]) -> Callable[[float], None]:
    given: Iterator[Exception | None] = iter(answers)

    def ask(_timeout: float) -> None:
        answer = next(given)
        if answer is not None:
            raise answer

    return ask


def test_waiting_ends_with_the_first_right_answer() -> None:
    """The question is put again until it is answered, and no more."""
    wait_ready(questions([OSError(), OSError(), None]), lambda: None, time.monotonic() + 60, 60)


def test_waiting_ends_when_the_service_has() -> None:
    """After a wrong answer it is seen whether the service is still there."""

    def check_alive() -> None:
        raise ProcessError("it ended")

    with pytest.raises(ProcessError, match="it ended"):
        wait_ready(questions([OSError("refused")]), check_alive, time.monotonic() + 60, 60)


def test_waiting_shows_no_password() -> None:
    """The last error is told without the passwords of URLs in it."""
    answer = OSError("cannot reach db://user:hidden@host")
    with pytest.raises(StartTimeoutError, match="OSError: cannot reach db://user:") as caught:
        wait_ready(questions([answer]), lambda: None, time.monotonic() - 1, 3)
    assert "not ready after 3 s" in caught.value.message
    assert "hidden" not in str(caught.value)


def test_an_answer_that_does_not_come() -> None:
    """A client that hangs is not waited for."""
    began = time.monotonic()
    assert not answers_within(lambda _: time.sleep(30), 0.1)
    assert time.monotonic() - began < 5
    assert answers_within(lambda _: None, 5)
    assert not answers_within(lambda _: 1 / 0, 5)


# --------------------------------------------------------------------- importing


def test_a_process_needs_nothing_of_containers() -> None:
    """A run with a process imports neither what runs containers, nor HTTP, nor OpenTelemetry."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_base_plugin import EchoPlugin
known = set(sys.modules)
plugin = EchoPlugin("echo")
handle = plugin.start()
assert plugin.health_check(handle).value == "healthy"
plugin.stop(handle)
print(sorted(set(sys.modules) - known))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    heavy = ["docker", "testcontainers", "http.client", "email", "opentelemetry", "requests"]
    ours = ["cleanroom_runtime._container", "cleanroom_runtime._engine"]
    assert [name for name in heavy + ours if f"'{name}'" in done.stdout] == []
