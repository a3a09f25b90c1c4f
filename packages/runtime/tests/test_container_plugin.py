"""Any image as a service: what it is given, what it is waited for, and what goes wrong."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import textwrap
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest

from cleanroom import (
    CleanroomEnvironment,
    CleanroomError,
    ConfigurationError,
    ContainerError,
    HealthStatus,
    ServiceError,
    ServiceHandle,
    StartTimeoutError,
    ValidationError,
)
from cleanroom_runtime import ContainerPlugin, ContainerSpec
from cleanroom_runtime._container_spec import memory_over
from cleanroom_runtime._inside import Inside
from cleanroom_runtime._run import Run
from tests.leftovers import left_of_service

Start = Callable[[ContainerPlugin], ServiceHandle]
BOUND = 2.0
TWO_PORTS = """
import socket, sys, threading
def serve(port):
    with socket.create_server(("0.0.0.0", port)) as listener:
        print(f"listening on {port}", flush=True)
        while True:
            connection, _ = listener.accept()
            connection.sendall(f"this is {port}".encode())
            connection.close()
threading.Thread(target=serve, args=(1025,)).start()
serve(8025)
"""

GREETED = """
import os, socket
host, _, port = os.environ["MAIL"].rpartition(":")
with socket.create_connection((host, int(port)), 5) as connection:
    print(connection.recv(100).decode(), end="")
"""


@pytest.fixture
def start() -> Iterator[Start]:
    """Start services, which are stopped after the test."""
    started: list[tuple[ContainerPlugin, ServiceHandle]] = []

    def start(plugin: ContainerPlugin) -> ServiceHandle:
        started.append((plugin, plugin.start()))
        return started[-1][1]

    yield start
    for plugin, handle in started:
        plugin.stop(handle)


@pytest.fixture
def ids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the services that this test has tried to start."""
    ids: list[str] = []
    new_id = Run.new_service_id
    monkeypatch.setattr(Run, "new_service_id", lambda run: ids.append(new_id(run)) or ids[-1])
    return ids


@pytest.fixture(scope="module")
def box(redis_image: str) -> Iterator[ServiceHandle]:
    """The handle of a service for tests that leave it as it is."""
    plugin = ContainerPlugin("box", redis_image, [6379, 8080], env={"ANSWER": "42"})
    plugin = plugin.with_wait(log="Ready to accept connections")
    handle = plugin.start()
    yield handle
    plugin.stop(handle)


def failing(plugin: ContainerPlugin) -> CleanroomError:
    with pytest.raises(CleanroomError) as caught:
        plugin.start()
    return caught.value


def greeting(handle: ServiceHandle, port: int) -> str:
    address = handle.metadata[f"host_{port}"], int(handle.metadata[f"port_{port}"])
    with socket.create_connection(address, 5) as connection, connection.makefile() as stream:
        return stream.read()


# ----------------------------------------------------------------------- what is run


def test_everything_in_one_expression(
    http_image: str, tmp_path: Path, start: Start, docker_engine: docker.DockerClient
) -> None:
    """An image gets ports, environment, files, command, limits and user from one expression."""
    script = tmp_path / "run.sh"
    script.write_text("#!/bin/sh\nexec python3 -u /srv/two.py\n")
    script.chmod(0o755)
    folder = tmp_path / "conf"
    folder.mkdir()
    folder.joinpath("a").write_text("A")
    plugin = (
        ContainerPlugin("mail", http_image, [1025, 8025], scheme="smtp")
        .with_env("GREETING", "hello")
        .with_file("/srv/two.py", TWO_PORTS)
        .with_file("/srv/bytes", b"\0\1")
        .with_file("/srv/run.sh", script)
        .with_file("/srv/conf", folder)
        .with_command(["-c", "import os; os.execv('/srv/run.sh', ['run.sh'])"])
        .with_wait(port=1025)
        .with_wait(log="listening on 8025")
        .with_limits(memory="96m", cpus=0.5, shm_size=2**25)
        .with_tmpfs("/scratch", "size=12m")
        .with_user("nobody")
        .with_pull("missing")
    )
    handle = start(plugin)
    facts = handle.metadata
    assert handle.url == f"smtp://{handle.host}:{handle.port}"
    assert (facts["host_1025"], facts["port_1025"]) == (handle.host, str(handle.port))
    assert facts["port_8025"] != facts["port_1025"]
    assert greeting(handle, 8025) == "this is 8025"
    assert facts["backend_reason"] == "it always runs in a container"
    shown = plugin.exec(
        handle,
        ["sh", "-c", "echo $GREETING; cat /srv/conf/a; id -un; df -k /scratch /dev/shm"],
    ).stdout
    assert shown.startswith("hello\nAnobody\n")
    assert re.search(r" 12288 .* /scratch\n", shown)
    assert re.search(r" 32768 .* /dev/shm\n", shown)
    assert plugin.copy_from(handle, "/srv/bytes") == b"\0\1"
    host = docker_engine.containers.get(facts["container_id"]).attrs["HostConfig"]
    assert (host["Memory"], host["NanoCpus"]) == (96 * 2**20, 500_000_000)


def test_it_ends_without_a_trace(redis_image: str) -> None:
    """What is stopped is gone, and stopping it twice is fine."""
    plugin = ContainerPlugin("box", redis_image, 6379)
    handle = plugin.start()
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    plugin.stop(handle)
    plugin.stop(handle)
    assert left_of_service(handle.id, engine=True) == []
    assert plugin.health_check(handle) is HealthStatus.UNHEALTHY


def test_plugins_do_not_change() -> None:
    """Every `with_...` leaves the plugin as it was."""
    plugin = ContainerPlugin("box", "acme/box:1", 80)
    before = plugin.container("acme/box:1")
    changed = (
        plugin.with_env("A", "1")
        .with_file("/a", "a")
        .with_command(["x"])
        .with_limits(memory=2**30)
        .with_tmpfs("/b")
        .with_user("1000:1000")
        .with_pull("always")
        .with_registry("someone", "hush")
    )
    assert plugin.container("acme/box:1") == before == ContainerSpec("acme/box:1", 80)
    assert changed.container("acme/box:1") == ContainerSpec(
        "acme/box:1",
        80,
        env={"A": "1"},
        command=("x",),
        files={"/a": b"a"},
        tmpfs={"/b": ""},
        memory=2**30,
        user="1000:1000",
        pull="always",
        registry=("someone", "hush"),
    )


def test_pulling_is_provisioning(redis_image: str, exporter: Any, start: Start) -> None:
    """The image is seen to in the span `provision`, before the one of the launch."""
    plugin = ContainerPlugin("box", redis_image, 6379)
    with pytest.raises(ContainerError, match=r"could not be pulled: .*refused"):
        ContainerPlugin("box", "localhost:1/none:1", 80).start()
    names = [span.name for span in exporter.get_finished_spans()]
    assert names == ["provision", "cleanroom.service.start"]
    exporter.clear()
    start(plugin)
    names = [span.name for span in exporter.get_finished_spans()]
    assert names[:2] == ["provision", "cleanroom.container.start"]


@pytest.mark.parametrize("asked", ["process", "external"])
def test_another_backend_does_not_apply(
    redis_image: str, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """With another CLEANROOM_BACKEND it is a container nevertheless, and the reason says so."""
    monkeypatch.setenv("CLEANROOM_BACKEND", asked)
    choice = ContainerPlugin("box", redis_image, 6379).choose()
    assert choice.backend == "container"
    assert choice.reason == f"it always runs in a container, also with CLEANROOM_BACKEND={asked}"


def test_a_backend_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CLEANROOM_BACKEND that is none is an error here too."""
    monkeypatch.setenv("CLEANROOM_BACKEND", "docker")
    with pytest.raises(ConfigurationError, match="CLEANROOM_BACKEND is 'docker'"):
        ContainerPlugin("box", "acme/box:1", 80).choose()


def test_a_url_does_not_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server somebody else runs cannot stand in, and who names one is told."""
    monkeypatch.setenv("CLEANROOM_BOX_URL", "redis://somewhere:6379")
    with pytest.raises(ConfigurationError, match="CLEANROOM_BOX_URL is set, but it always runs"):
        ContainerPlugin("box", "acme/box:1", 80).choose()


def test_without_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no engine answers, the error says how to have one, and speaks of nothing else."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    error = failing(ContainerPlugin("box", "acme/box:1", 80))
    assert isinstance(error, ContainerError)
    assert "always runs in a container, but no container engine answers" in error.message
    assert "start that engine" in str(error.hint)
    assert "process" not in str(error)


# ----------------------------------------------------------------- what is waited for


def test_waits_that_are_met(redis_image: str, start: Start) -> None:
    """Each kind of wait ends when it holds, and the service is healthy then."""
    plugin = ContainerPlugin(
        "box",
        redis_image,
        6379,
        wait=[
            {"port": 6379},
            {"log": "Ready to accept connections"},
            {"log_matches": "^.*# Server initialized$"},
            {"log_matches": re.compile(r"(?s)initialized.*Ready")},
            {"command": ["redis-cli", "ping"]},
            {
                "check": lambda facts: socket.create_connection(
                    (facts["host"], facts["port"])
                ).close()
            },
        ],
    )
    handle = start(plugin)
    assert plugin.health_check(handle) is HealthStatus.HEALTHY


def test_http_is_waited_for(http_image: str, start: Start) -> None:
    """A path is waited for, on the main port or another one, with a status or any below 400."""
    plugin = ContainerPlugin("api", http_image, [9999, 8080]).with_wait(http="/health", port=8080)
    start(plugin)
    start(ContainerPlugin("api", http_image, 8080).with_wait(http="/nothing?a=b", status=404))


def test_a_port_that_is_published_is_not_one_that_is_listened_on(
    http_image: str, start: Start
) -> None:
    """By default each port is waited for until the program inside listens, though its published
    end takes connections from the first moment."""
    late = f"import time; time.sleep(1)\n{TWO_PORTS}"
    began = time.monotonic()
    handle = start(ContainerPlugin("late", http_image, [8025, 1025], command=["-c", late]))
    assert time.monotonic() - began > 1
    assert greeting(handle, 1025) == "this is 1025"


@pytest.mark.parametrize(
    ("wait", "says"),
    [
        ({"port": 8080}, "waiting for port 8080: nothing listens on it inside the container"),
        ({"log": "no such"}, r"waiting for 'no such' in the log: it is not in the \d+ lines"),
        ({"log_matches": "^no.such$"}, r"waiting for a match of '\^no.such\$' in the log: "),
        ({"http": "/ready"}, r"waiting for GET /ready on port 6379: no answer in HTTP \(Bad"),
        (
            {"command": ["redis-cli", "-p", "1", "-a", "hush", "ping"]},
            "waiting for command 'redis-cli' in the container: it ended with exit code 1: "
            ".*onnection refused",
        ),
        ({"command": ["no-such"]}, "waiting for command 'no-such'.*exit code 12[67]: .*not found"),
        ({"check": lambda _: False}, "waiting for check <lambda>: it returned False"),
        ({"check": lambda facts: facts["no"]}, "waiting for check <lambda>: it raised KeyError"),
    ],
)
def test_waits_that_are_not_met(box: ServiceHandle, wait: Mapping[str, Any], says: str) -> None:
    """What is said of a wait that does not hold names it and says how it is; no argument shows."""
    plugin = ContainerPlugin("box", "acme/box:1", [6379, 8080], wait=wait)
    with pytest.raises(ServiceError) as caught:
        plugin.probe(box.metadata, 20)
    assert re.search(says, caught.value.message)
    assert "hush" not in str(caught.value)


def test_a_check_that_hangs(box: ServiceHandle) -> None:
    """A check that hangs is not waited for any longer than there is time."""
    plugin = ContainerPlugin("box", "acme/box:1", 6379).with_wait(check=lambda _: time.sleep(20))
    with pytest.raises(
        ServiceError, match=r"waiting for check <lambda>: it did not return within 0\.2 s"
    ):
        plugin.probe(box.metadata, 0.2)


def test_a_check_that_needs_long(redis_image: str, start: Start) -> None:
    """A check, or a command, has what is left of the start, however many seconds it needs."""
    began = time.monotonic()
    plugin = ContainerPlugin("box", redis_image, 6379, start_timeout=40)
    plugin = plugin.with_wait(check=lambda _: time.sleep(6)).with_wait(command=["sleep", "5.5"])
    start(plugin)
    assert 11.5 < time.monotonic() - began < 17


def test_a_container_that_ends_while_a_check_is_asked(http_image: str) -> None:
    """A container that has ended is noticed while a check takes its time."""
    plugin = ContainerPlugin("box", http_image, 80, command=["-c", "import time; time.sleep(1)"])
    began = time.monotonic()
    error = failing(plugin.with_wait(check=lambda _: time.sleep(30)))
    assert re.search("the container ended .*exit code 0", error.message)
    assert time.monotonic() - began < 15


def test_a_wait_that_is_never_met(redis_image: str, ids: list[str]) -> None:
    """When time is up, the error says which wait did not hold and how it was last, with the log
    and what to change; nothing is left."""
    plugin = ContainerPlugin("box", redis_image, [6379, 8080], start_timeout=2)
    error = failing(plugin)
    assert isinstance(error, StartTimeoutError)
    assert "2 s; the last error was waiting for port 8080: nothing listens" in error.message
    assert "Redis is starting" in str(error.log_tail)
    assert "start_timeout" in str(error.hint)
    assert [left_of_service(each, engine=True) for each in ids] == [[]]


def test_a_check_that_is_broken(redis_image: str) -> None:
    """A check that no service can ever make up for ends the start at once."""
    plugin = ContainerPlugin("box", redis_image, 6379)
    error = failing(plugin.with_wait(check=lambda _: no_such_name))  # noqa: F821
    assert "raised NameError: name 'no_such_name' is not defined" in error.message


def test_a_wrong_answer_in_http(http_image: str, start: Start) -> None:
    """A status that is not the expected one is shown, with the answer."""
    plugin = ContainerPlugin("api", http_image, 8080)
    metadata = start(plugin).metadata
    with pytest.raises(ServiceError, match=r"404, and one below 400 is expected: 'not found'$"):
        plugin.with_wait(http="/ready").probe(metadata, 20)
    with pytest.raises(ServiceError, match=r"200, and 204 is expected: 'OK'$"):
        plugin.with_wait(http="/health", status=204).probe(metadata, 20)


def test_secrets_in_what_it_says(http_image: str, start: Start) -> None:
    """The value of a secret variable is hidden in logs, errors and reprs."""
    tell = "import os, runpy; print(os.environ['API_TOKEN'])"
    serve = ["-u", "-c", f"{tell}; runpy.run_path('/srv/server.py')"]
    plugin = ContainerPlugin("api", http_image, 8080, command=serve)
    plugin = plugin.with_env("API_TOKEN", "hush-hush")
    handle = start(plugin)
    logs = plugin.logs(handle)
    assert logs.startswith("***\n")
    asking = plugin.with_wait(http="/env/API_TOKEN", status=500)
    with pytest.raises(ServiceError, match=r"is expected: '\*\*\*'$"):
        asking.probe(handle.metadata, 20)
    asking = plugin.with_wait(command=["sh", "-c", "echo no $API_TOKEN; exit 1"])
    with pytest.raises(ServiceError, match=r"exit code 1: 'no \*\*\*'$"):
        asking.probe(handle.metadata, 20)
    said = failing(plugin.with_command(["-u", "-c", f"{tell}; 1 / 0"]))
    assert "***\n" in str(said.log_tail)
    shown = (repr(plugin), repr(handle), handle.to_json(), logs, str(said), repr(said))
    assert "hush-hush" not in "".join(shown)


def test_secrets_that_are_cut(http_image: str, start: Start, exporter: Any) -> None:
    """Of a secret where a long answer is cut, not even the beginning shows; nor does one in what
    a check raises, or in a span."""
    secret, long = 'hush"hush', "-" * 295
    plugin = ContainerPlugin("api", http_image, 8080, start_timeout=1.5)
    plugin = plugin.with_env("API_TOKEN", secret).with_env("BOTH", f"{long}{secret}")

    def check(_: Mapping[str, str]) -> None:
        raise RuntimeError(f"{long[30:]}{json.dumps({'token': secret})}")

    for wait in ({"http": "/env/BOTH", "status": 500}, {"check": check}):
        error = failing(plugin.with_wait(**wait))
        shown = [*traceback.format_exception(error)]
        for span in exporter.get_finished_spans():
            shown += [
                str(span.status.description),
                *(str(event.attributes) for event in span.events),
            ]
        assert "hush" not in "".join(shown)
        assert "**" in error.message


# ------------------------------------------------------------------------------ health


def in_time(plugin: ContainerPlugin, handle: ServiceHandle) -> HealthStatus:
    began = time.monotonic()
    status = plugin.health_check(handle)
    assert time.monotonic() - began < BOUND + 0.5  # a busy machine may be late in telling
    return status


@pytest.mark.parametrize("wait", [{"log": "Ready"}, {"port": 6379}, {"command": ["true"]}])
def test_unhealthy_when_paused_or_killed(
    redis_image: str,
    start: Start,
    docker_engine: docker.DockerClient,
    wait: Mapping[str, Any],
) -> None:
    """A service whose container is paused or killed is unhealthy within the bound, whatever it
    was waited for."""
    plugin = ContainerPlugin("box", redis_image, 6379, wait=wait)
    handle = start(plugin)
    container = docker_engine.containers.get(handle.metadata["container_id"])
    container.pause()
    assert in_time(plugin, handle) is HealthStatus.UNHEALTHY
    container.unpause()
    assert in_time(plugin, handle) is HealthStatus.HEALTHY
    plugin.kill(handle)
    assert in_time(plugin, handle) is HealthStatus.UNHEALTHY


def test_unhealthy_when_the_question_is_not_answered(redis_image: str, start: Start) -> None:
    """Health follows what was waited for, also where the program hangs and its container runs."""
    plugin = ContainerPlugin("box", redis_image, 6379).with_wait(
        command=["sh", "-c", "test ! -e /tmp/ill"]
    )
    handle = start(plugin)
    plugin.copy_to(handle, "", "/tmp/ill")
    assert in_time(plugin, handle) is HealthStatus.UNHEALTHY
    hanging = ContainerPlugin("box", redis_image, 6379).with_wait(command=["sleep", "10"])
    assert in_time(hanging, handle) is HealthStatus.UNHEALTHY


# ------------------------------------------------------------------- what goes wrong


def test_an_image_that_is_missing(docker_engine: docker.DockerClient) -> None:
    """An image that is missing and must not be pulled is named."""
    error = failing(ContainerPlugin("box", "acme/none:1", 80, pull="never"))
    assert "the engine has no image 'acme/none:1', and pull='never' forbids" in error.message
    assert error.service == "box"


def test_it_exits_at_once(http_image: str) -> None:
    """Waiting ends with the container, whose exit code and last words are shown."""
    plugin = ContainerPlugin("box", http_image, 80, command=["-c", "raise SystemExit('no goods')"])
    began = time.monotonic()
    error = failing(plugin)
    assert time.monotonic() - began < plugin.start_timeout / 2
    assert isinstance(error, ContainerError)
    assert re.search("the container ended .*exit code 1", error.message)
    assert error.log_tail == "no goods\n"


def test_it_exits_while_others_are_asked(http_image: str) -> None:
    """A container that has ended is not ready, though all that was waited for once held."""
    code = "print('ready', flush=True); import time; time.sleep(0.5)"
    plugin = ContainerPlugin("box", http_image, 80, command=["-c", code]).with_wait(log="ready")
    error = failing(plugin.with_wait(check=lambda _: time.sleep(1)))
    assert re.search("the container ended .*exit code 0", error.message)


def test_a_file_that_is_gone(redis_image: str, tmp_path: Path) -> None:
    """A local file that was removed in the meantime is named, and nothing is left."""
    local = tmp_path / "settings"
    local.touch()
    plugin = ContainerPlugin("box", redis_image, 6379).with_file("/settings", local)
    local.unlink()
    error = failing(plugin)
    assert re.search(f"file for the container is missing: {local} .*No such file", error.message)


LOOPBACK = TWO_PORTS.replace("0.0.0.0", "127.0.0.1")
MAPPED = LOOPBACK.replace("127.0.0.1", "::ffff:127.0.0.1").replace(
    ")) as", "), family=10, dualstack_ipv6=True) as"
)
NO_CAT = f"import os; os.remove('/usr/bin/cat')\n{LOOPBACK}"
ONLY_INSIDE = "is listened on inside the container at 127.0.0.1 only, where nobody else gets to"


@pytest.mark.parametrize(
    ("code", "port", "says"),
    [
        (LOOPBACK, 8025, f"^port 8025 {ONLY_INSIDE}: the service has to bind 0\\.0\\.0\\.0; "),
        (MAPPED, 8025, f"^port 8025 {ONLY_INSIDE}: "),
        (TWO_PORTS, 80, "^nothing listens on port 80 inside the container, but on 1025, 8025; "),
        (MAPPED, 80, r"but on 1025 at 127\.0\.0\.1 only, 8025 at 127\.0\.0\.1 only; "),
        ("import time; time.sleep(60)", 80, "^nothing .* container, nor on any other one yet; "),
        (NO_CAT, 8025, "^the image exposes .*; see ports and wait; .* listen at 0.0.0.0"),
    ],
)
def test_a_port_that_nobody_else_reaches(http_image: str, code: str, port: int, says: str) -> None:
    """It is told where the container listens instead, as far as that can be found out."""
    plugin = ContainerPlugin("b", http_image, port, user="0", start_timeout=1)
    error = failing(plugin.with_command(["-u", "-c", code]))
    assert "nothing listens on it inside the container, or only at 127.0.0.1" in error.message
    assert re.search(says, str(error.hint))


def test_a_path_at_a_port_that_nobody_else_reaches(http_image: str) -> None:
    """The same is told of a port that is asked for a path, be it not the main one."""
    plugin = ContainerPlugin("b", http_image, [1, 8025], start_timeout=1)
    plugin = plugin.with_wait(http="/", port=8025).with_command(["-u", "-c", LOOPBACK])
    error = failing(plugin)
    assert "waiting for GET / on port 8025: no answer in HTTP" in error.message
    assert str(error.hint).startswith(f"port 8025 {ONLY_INSIDE}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "9"}, "name is '9'"),
        ({"image": "A:b:c"}, "image='A:b:c' is not an image reference"),
        ({"image": None}, "image is None"),
        ({"ports": ()}, r"ports is \(\)"),
        ({"ports": [80, 0]}, "ports is 0"),
        ({"ports": "80"}, "ports is '80'"),
        ({"ports": [80, 80]}, r"ports is \[80, 80\]"),
        ({"env": {"A B": "x"}}, "key in env is 'A B'"),
        ({"env": {"A": 1}}, "env has no text for A"),
        ({"env": ["A=1"]}, "env is no table"),
        ({"files": {"a": "x"}}, "path is 'a'"),
        ({"files": {"/": "x"}}, "path is '/'"),
        ({"files": {"/a": 1}}, "content of /a is of type int"),
        ({"files": {"/a": Path("/no/such")}}, "content of /a is /no/such"),
        ({"command": "run it"}, "command is 'run it'"),
        ({"command": []}, "command is of type list"),
        ({"memory": "lots"}, "memory is 'lots'"),
        ({"memory": 0}, "memory is 0"),
        ({"shm_size": -1}, "shm_size is -1"),
        ({"cpus": 0}, "cpus is 0"),
        ({"tmpfs": {"a": ""}}, "path is 'a'"),
        ({"tmpfs": {"/a": 1}}, "tmpfs has 1 for /a"),
        ({"user": "a b"}, "user is 'a b'"),
        ({"pull": "sometimes"}, "pull is 'sometimes'"),
        ({"registry": {"username": "me"}}, "registry has no text for password"),
        ({"registry": {"user": "me"}}, r"registry\.user: unknown key"),
        ({"scheme": "a://"}, "scheme is 'a://'"),
        ({"wait": {}}, "wait has nothing"),
        ({"wait": {"port": 81}}, "port in wait is 81"),
        ({"wait": {"log": ""}}, "log in wait is ''"),
        ({"wait": {"log": "a", "port": 80}}, "wait has log and port"),
        ({"wait": {"log_matches": "("}}, r"log_matches in wait is '\('"),
        ({"wait": {"http": "ready"}}, "http in wait is 'ready'"),
        ({"wait": {"http": "/", "status": 1}}, "status in wait is 1"),
        ({"wait": {"port": 80, "status": 200}}, "wait has port and status"),
        ({"wait": {"command": "ls"}}, "command in wait is 'ls'"),
        ({"wait": {"check": "ls"}}, "check in wait is 'ls'"),
        ({"wait": {"logs": "a"}}, r"wait\.logs: unknown key\s+hint: did you mean 'log'"),
        ({"start_timeout": 0}, "start_timeout is 0"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], says: str) -> None:
    """A malformed argument is refused, with its name and value."""
    with pytest.raises(ValidationError, match=f"^{says}"):
        ContainerPlugin(**{"name": "box", "image": "acme/box:1", "ports": 80, **arguments})


# -------------------------------------------------------------- in a running container


def test_exec(box: ServiceHandle) -> None:
    """A command's exit code and what it wrote are returned, whatever the exit code is."""
    result = ContainerPlugin.exec(
        box,
        ["sh", "-c", "echo $ANSWER $MORE; pwd; id -un; echo no >&2; exit 3"],
        env={"MORE": "or less"},
        user="nobody",
        cwd="/tmp",
    )
    assert (result.exit_code, result.stdout) == (3, "42 or less\n/tmp\nnobody\n")
    assert result.stderr == "no\n"


def test_exec_of_much(box: ServiceHandle) -> None:
    """All that a command writes is returned."""
    result = ContainerPlugin.exec(box, ["head", "-c", "3000000", "/dev/zero"])
    assert len(result.stdout) == 3_000_000


def test_exec_of_what_is_not_there(box: ServiceHandle) -> None:
    """A program that is not there is an exit code, as in a shell, or an error that names it."""
    try:  # engines differ in this
        result = ContainerPlugin.exec(box, ["no-such-program"])
    except ContainerError as error:
        said = error.message
    else:
        assert result.exit_code in (126, 127)
        said = result.stdout + result.stderr
    assert "no-such-program" in said


@pytest.mark.parametrize("command", ["sleep 20", "while :; do echo x; sleep 0.05; done"])
def test_exec_takes_too_long(box: ServiceHandle, command: str) -> None:
    """A command that is not done in time is an error, also while it writes on and on."""
    began = time.monotonic()
    with pytest.raises(ContainerError, match=r"'sh' was not done after 0.3 s") as caught:
        ContainerPlugin.exec(box, ["sh", "-c", command], timeout=0.3)
    assert time.monotonic() - began < 10
    assert command not in str(caught.value)


def test_files_in_and_out(box: ServiceHandle, tmp_path: Path) -> None:
    """Files and folders are copied into a container and out of it; links are followed."""
    ContainerPlugin.copy_to(box, b"\0bytes", "/data/in/a")
    assert ContainerPlugin.copy_from(box, "/data/in/a") == b"\0bytes"
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.joinpath("run").write_text("#!/bin/sh\necho it runs")
    folder.joinpath("run").chmod(0o755)
    ContainerPlugin.copy_to(box, folder, "/data/folder")
    assert ContainerPlugin.exec(box, ["/data/folder/run"]).stdout == "it runs\n"
    copy = ContainerPlugin.copy_from(box, "/data", tmp_path / "new" / "place")
    assert copy == tmp_path / "new" / "place" / "data"
    assert copy.joinpath("in", "a").read_bytes() == b"\0bytes"
    assert copy.joinpath("folder", "run").read_text().endswith("it runs")
    ContainerPlugin.exec(box, ["ln", "-s", "../data/in/a", "/data/link"])
    assert ContainerPlugin.copy_from(box, "/data/link") == b"\0bytes"
    ContainerPlugin.exec(box, ["ln", "-s", "round", "/data/round"])
    with pytest.raises(ContainerError, match=r"/data/round .*(nowhere|too many links)"):
        ContainerPlugin.copy_from(box, "/data/round")


def test_links_in_a_folder(nginx_image: str, start: Start, tmp_path: Path) -> None:
    """The links of an ordinary image's /etc arrive as they are, and its devices do not."""
    box = start(ContainerPlugin("web", nginx_image, 80))
    command = "ln -s ../../up /etc/up; mkfifo /etc/pipe; ln -P /etc/up /etc/same; find /etc -type l"
    links = ContainerPlugin.exec(box, ["sh", "-c", command]).stdout.split()
    assert {"/etc/up", "/etc/same", "/etc/mtab"} <= {*links}
    for _ in range(2):  # the second time into what is there already
        copy = ContainerPlugin.copy_from(box, "/etc", tmp_path / "copies")
    assert copy == tmp_path / "copies" / "etc"
    led = [str(copy.parent.joinpath(link[1:]).readlink()) for link in links]
    assert led == ContainerPlugin.exec(box, ["readlink", *links]).stdout.split()
    assert not (copy / "pipe").exists()
    assert list(copy.parent.iterdir()) == [copy]


def test_files_that_cannot_be_copied(box: ServiceHandle, tmp_path: Path) -> None:
    """Each way in which a copy fails is told."""
    with pytest.raises(ContainerError, match=r"/no/such could not be read .*no/such"):
        ContainerPlugin.copy_from(box, "/no/such")
    with pytest.raises(ContainerError, match="/etc cannot be read: it is a folder"):
        ContainerPlugin.copy_from(box, "/etc")
    with pytest.raises(ContainerError, match="/dev/null cannot be read: it is no regular file"):
        ContainerPlugin.copy_from(box, "/dev/null")
    with pytest.raises(ContainerError, match="/dev/null could not be copied: it is no file"):
        ContainerPlugin.copy_from(box, "/dev/null", tmp_path)
    tmp_path.joinpath("file").touch()
    with pytest.raises(ContainerError, match=f"/etc could not be copied to {tmp_path}/file: "):
        ContainerPlugin.copy_from(box, "/etc", tmp_path / "file")
    with pytest.raises(ContainerError, match="/etc/passwd/below could not be written"):
        ContainerPlugin.copy_to(box, "x", "/etc/passwd/below")
    with pytest.raises(ValidationError, match=r"content of /a is .*none"):
        ContainerPlugin.copy_to(box, tmp_path / "none", "/a")
    with pytest.raises(ValidationError, match="path is 'relative'"):
        ContainerPlugin.copy_from(box, "relative")


@pytest.mark.parametrize("path", ["/data/conf", "/data", "/data/a/b", "/x/../data/conf"])
def test_files_in_memory(redis_image: str, start: Start, path: str) -> None:
    """A file that would be lost in a tmpfs is refused, before the start as later."""
    plugin = ContainerPlugin("box", redis_image, 6379).with_tmpfs("/data")
    error = failing(plugin.with_file(path, "x"))
    assert isinstance(error, ValidationError)
    assert error.message == f"the file {path} lies in the tmpfs /data"
    assert "by a command" in str(error.hint)
    handle = start(plugin.with_file("/database", "x"))
    with pytest.raises(ContainerError, match=f"{path} lies in the tmpfs /data of") as caught:
        plugin.copy_to(handle, b"y", path)
    assert "by a command" in str(caught.value.hint)
    plugin.copy_to(handle, b"y", "/datas/conf")
    assert plugin.exec(handle, ["cat", "/database", "/datas/conf"]).stdout == "xy"


@pytest.mark.parametrize(
    ("path", "memory"),
    [("/a/b", "/a"), ("/a/vol/b", None), ("/a/vol/in/b", "/a/vol/in"), ("/ab", None), ("/", None)],
)
def test_what_lies_in_memory(path: str, memory: str | None) -> None:
    """Of what is mounted in something else, the inner one says whether a path is in memory."""
    assert memory_over(path, ["/a", "/a/vol/in"], ["/a/vol"]) == memory


def test_in_a_container_that_is_gone(redis_image: str) -> None:
    """Of a container that was stopped, every question is an error that says so."""
    plugin = ContainerPlugin("box", redis_image, 6379)
    handle = plugin.start()
    plugin.stop(handle)
    for ask in (
        lambda: plugin.exec(handle, ["true"]),
        lambda: plugin.copy_from(handle, "/etc/passwd"),
        lambda: plugin.copy_to(handle, "", "/a"),
    ):
        with pytest.raises(ContainerError, match="No such container") as caught:
            ask()
        assert caught.value.service == "box"


@pytest.mark.parametrize(
    ("step", "ask"),
    [
        ("POST /containers/.*/exec", lambda inside: inside.run(["true"])),
        ("POST /exec/.*/start", lambda inside: inside.run(["true"])),
        ("GET /exec/.*/json", lambda inside: inside.run(["true"])),
        ("PUT /containers/.*/archive", lambda inside: inside.write("/a", b"a")),
        ("GET /containers/.*/archive", lambda inside: inside.read("/etc/passwd")),
    ],
)
def test_an_engine_that_fails(
    box: ServiceHandle, faulty_engine: Any, step: str, ask: Callable[[Inside], object]
) -> None:
    """An engine that hangs up, or refuses, at any step is an error that says so."""
    inside = Inside(box.metadata["container_id"], faulty_engine.engine, "box")
    ask(inside)
    faulty_engine.hang_up(step)
    with pytest.raises(ContainerError, match="the engine does not answer: ") as caught:
        ask(inside)
    assert caught.value.service == "box"
    faulty_engine.mend()
    faulty_engine.refuse(step, 500, "the disk is on fire")
    with pytest.raises(ContainerError, match=r"could not be .*: the disk is on fire"):
        ask(inside)


def test_asking_needs_no_docker_client(box: ServiceHandle) -> None:
    """Health, logs, commands and files are quick in a process that has started nothing: the
    client library, which takes long to import, is not."""
    code = f"""
        import sys
        from cleanroom import ServiceHandle
        from cleanroom_runtime import ContainerPlugin

        handle = ServiceHandle.from_json({box.to_json()!r})
        plugin = ContainerPlugin("box", "acme/box:1", [6379, 8080]).with_wait(port=6379)
        plugin.examine(handle, 2)
        plugin.exec(handle, ["true"])
        plugin.copy_from(handle, "/etc/passwd")
        plugin.logs(handle)
        print([name for name in ("docker", "testcontainers", "requests") if name in sys.modules])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_where_there_is_no_container() -> None:
    """A service that runs as a process has no inside."""
    handle = ServiceHandle("r1-s1", "db", {"backend": "process"})
    with pytest.raises(ServiceError, match="it runs in no container"):
        ContainerPlugin.exec(handle, ["true"])


# ------------------------------------------------------------------------- declared


def test_declared(http_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A declared container takes all there is to say, and others get addresses that fit them."""
    monkeypatch.setenv("SECRET", "hush")
    tmp_path.joinpath("two.py").write_text(TWO_PORTS)
    tmp_path.joinpath("cleanroom.toml").write_text(f"""
        [services.mail]
        plugin = "container"
        image = "{http_image}"
        ports = [1025, 8025]
        scheme = "smtp"
        env = {{ MAIL_PASSWORD = "${{SECRET}}" }}
        files = {{ "/srv/two.py" = {{ path = "two.py" }}, "/srv/text" = "some text" }}
        command = ["/srv/two.py"]
        wait = [{{ log = "listening on 1025" }}, {{ port = 8025 }}]
        memory = "96m"
        cpus = 1
        shm_size = "8m"
        tmpfs = ["/scratch"]
        user = "nobody"
        pull = "never"
        start_timeout = 30

        [services.other]
        plugin = "container"
        image = "{http_image}"
        ports = 8080
        env = {{ MAIL = "{{mail.host_8025}}:{{mail.port_8025}}" }}
        wait = {{ http = "/env/MAIL" }}
    """)
    with CleanroomEnvironment.from_config(tmp_path) as env:
        other, mail = env["other"], env["mail"]
        assert mail.url.startswith("smtp://")
        assert greeting(mail, 8025) == "this is 8025"
        assert ContainerPlugin.copy_from(mail, "/srv/text") == b"some text"
        shown = ContainerPlugin.exec(other, ["python3", "-c", GREETED]).stdout
        assert shown == "this is 8025"


def test_shared_by_workers(redis_image: str, pytester: pytest.Pytester) -> None:
    """All workers of a pytest run use one container, in which each can run commands."""
    pytester.path.joinpath("cleanroom.toml").write_text(f"""
        [services.box]
        plugin = "container"
        image = "{redis_image}"
        ports = 6379
        wait = {{ command = ["redis-cli", "ping"] }}
    """)
    pytester.makepyfile("""
        import pytest
        from cleanroom_runtime import ContainerPlugin

        @pytest.mark.parametrize("number", range(4))
        def test_it(cleanroom_env, number):
            box = cleanroom_env["box"]
            result = ContainerPlugin.exec(box, ["sh", "-c", "echo x >> /tmp/x; cat /tmp/x"])
            assert result.exit_code == 0
            lines = len(ContainerPlugin.copy_from(box, "/tmp/x").splitlines())
            assert len(result.stdout.splitlines()) <= lines <= 4
    """)
    options = ["-p", "no:randomly", "-p", "no:cacheprovider", "-n", "2"]
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(passed=4)
    shown = [line for line in result.outlines if line.startswith("box: container, ready in ")]
    assert len(shown) == 1
    assert shown[0].endswith("(it always runs in a container)")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('imge = "a"', "imge: unknown key"),
        ('wait = { log = "a", port = 80 }', "wait has log and port"),
        ('wait = { htp = "/" }', r"wait\.htp: unknown key\s+hint: did you mean 'http'"),
        (
            "wait = { x = 1 }",
            r"wait\.x: .*\s+hint: known: command, http, log, log_matches, port, s",
        ),
        ("wait = {}", r"wait has nothing\s+hint: give one of [a-z_, ]+, command; beside"),
        ('files = { "/a" = { paths = "a" } }', r'files\."/a"\.paths: unknown key'),
        ('files = { "/a" = { path = 3 } }', r'files\."/a"\.path is 3'),
        ('files = { "/a" = { path = "no/such" } }', "content of /a is /.*/no/such"),
        (
            'registry = { username = "me", passwrd = "hush" }',
            r"registry\.passwrd: unknown key\s+hint: did you mean 'password'",
        ),
    ],
)
def test_declarations_that_cannot_be(tmp_path: Path, line: str, says: str) -> None:
    """What is wrong in a declaration is told with file and table."""
    file = tmp_path / "cleanroom.toml"
    file.write_text(f'[services.box]\nplugin = "container"\nimage = "a"\nports = 80\n{line}\n')
    with (
        pytest.raises(ConfigurationError, match=rf"cleanroom.toml \[services.box\].*{says}") as e,
        CleanroomEnvironment.from_config(file) as env,
    ):
        env.start("box")
    assert "hush" not in str(e.value)


def test_a_declaration_that_lacks_something(tmp_path: Path) -> None:
    """What has to be declared, and was not, is named."""
    file = tmp_path / "cleanroom.toml"
    file.write_text('[services.box]\nplugin = "container"\n')
    with (
        pytest.raises(ConfigurationError, match=r"\[services.box\]: image and ports must be given"),
        CleanroomEnvironment.from_config(file) as env,
    ):
        env.start("box")
