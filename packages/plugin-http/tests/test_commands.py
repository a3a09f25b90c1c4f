"""A local command: told where to listen, given its environment, and gone when it is stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from cleanroom import (
    CleanroomEnvironment,
    ConfigurationError,
    HealthStatus,
    ProcessError,
    ServiceError,
    ServiceHandle,
    StartTimeoutError,
    ValidationError,
)
from cleanroom.config import load_config
from cleanroom_plugin_http import HttpPlugin, HttpService, ServiceSession
from tests.leftovers import left_of_service, until

Shop = Callable[..., HttpPlugin]
Start = Callable[[HttpPlugin], ServiceHandle]

BOUND = 2.0
"""Seconds within which a health check answers."""


def told(handle: ServiceHandle) -> Mapping[str, object]:
    """What the service says of the request and of itself."""
    answer = requests.get(f"{handle.url}/echo", timeout=5).json()
    assert isinstance(answer, dict)
    return answer


# ----------------------------------------------------------------- start, ask, stop


def test_start_and_stop(shop: Shop) -> None:
    """A command starts, is healthy, says what it is, and leaves nothing when it is stopped."""
    plugin = shop().with_health_check("/health", "OK")
    handle = plugin.start()
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    assert handle.url == f"http://127.0.0.1:{handle.port}"
    facts = handle.metadata
    assert (facts["backend"], facts["version"]) == ("process", "unknown")
    assert facts["executable"] == sys.executable
    assert left_of_service(handle.id)
    plugin.stop(handle)
    assert left_of_service(handle.id) == []
    plugin.stop(handle)
    assert plugin.health_check(handle) is HealthStatus.UNHEALTHY


def test_a_handle_travels(shop: Shop) -> None:
    """Another plugin object of the name asks and stops by a handle that went through JSON."""
    handle = ServiceHandle.from_json(shop().start().to_json())
    assert shop().health_check(handle) is HealthStatus.HEALTHY
    shop().stop(handle)
    assert left_of_service(handle.id) == []


def test_what_it_writes(shop: Shop, start: Start) -> None:
    """What the service writes, to both streams and without flushing, can be read at once."""
    plugin = shop().with_health_check()
    handle = start(plugin)
    requests.get(f"{handle.url}/teapot", timeout=5)
    log = plugin.logs(handle)
    assert "the shop opens" in log
    assert '"GET /teapot HTTP/1.1" 418' in log


@pytest.mark.parametrize("how", ["workers", "deaf"])
def test_whatever_it_started_is_gone(shop: Shop, how: str) -> None:
    """Forked workers, a child in a session of its own, and who will not hear are all ended."""
    plugin = shop("--do", how).with_health_check()
    handle = plugin.start()
    count = {"workers": 5, "deaf": 1}[how]
    until(lambda: len(processes_of_service(handle)) == count)
    plugin.stop(handle)
    assert left_of_service(handle.id) == []


def test_workers_of_a_killed_service_are_gone(shop: Shop) -> None:
    """Where the first process was killed, stopping ends those it has left."""
    plugin = shop("--do", "workers").with_health_check()
    handle = plugin.start()
    until(lambda: len(processes_of_service(handle)) == 5)
    plugin.kill(handle)
    plugin.stop(handle)
    assert left_of_service(handle.id) == []


def processes_of_service(handle: ServiceHandle) -> list[str]:
    return [line for line in left_of_service(handle.id) if line.startswith("process")]


# ------------------------------------------------------------- what a command is told


def test_port_and_host_are_filled_in(shop: Shop, start: Start) -> None:
    """`{port}` and `{host}` stand for the address, in arguments and environment; no other does,
    and in a second pair of braces they stand for themselves."""
    env = {"AT": "{host}:{port}", "OTHER": "{name} {{port}} ${X}"}
    handle = start(shop("--host", "{host}", env=env).with_env("MORE", "m {port}"))
    answer = told(handle)
    environment = answer["env"]
    assert isinstance(environment, dict)
    assert environment["AT"] == f"127.0.0.1:{handle.port}"
    assert environment["OTHER"] == "{name} {port} ${X}"
    assert environment["MORE"] == f"m {handle.port}"
    assert (environment["PORT"], environment["HOST"]) == (str(handle.port), "127.0.0.1")
    assert answer["argv"] == ["--port", str(handle.port), "--host", "127.0.0.1"]


def test_the_environment_is_inherited(
    shop: Shop, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command has the environment of the tests, and what it was given wins."""
    monkeypatch.setenv("FROM_TESTS", "yes")
    monkeypatch.setenv("PORT", "1")
    handle = start(shop(env={"HOST": "mine", "EMPTY": ""}))
    environment = told(handle)["env"]
    assert isinstance(environment, dict)
    assert environment["FROM_TESTS"] == "yes"
    assert environment["PORT"] == str(handle.port)
    assert (environment["HOST"], environment["EMPTY"]) == ("mine", "")


def test_the_working_directory(
    shop: Shop, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs where it was told to, else in the current folder."""
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(tmp_path)
    assert told(start(shop()))["cwd"] == str(tmp_path)
    assert told(start(shop(cwd="other")))["cwd"] == str(other)


def test_programs_are_found(
    command: Callable[..., list[str]],
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program is beside the running Python, on `PATH`, or relative to the command's folder."""
    rest = command()[1:]
    name = Path(sys.executable).name
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert start(HttpPlugin("a", command=[name, *rest])).require("executable") == sys.executable
    script = tmp_path / "run"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    handle = start(HttpPlugin("b", command=["./run", *rest], cwd=tmp_path))
    assert handle.require("executable") == str(script)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    handle = start(HttpPlugin("c", command=["run", *rest], env=env))
    assert handle.require("executable") == str(script)


def test_two_at_once(shop: Shop, start: Start) -> None:
    """Two of the same command have ports of their own."""
    one, other = start(shop()), start(shop())
    assert one.port != other.port
    assert told(one)["argv"] != told(other)["argv"]


def test_secrets_show_nowhere(shop: Shop, start: Start) -> None:
    """Values of variables are in no repr, handle nor span."""
    plugin = shop(env={"DATABASE_URL": "postgresql://u:secret@h/d"})
    handle = start(plugin)
    for shown in (repr(plugin), repr(handle), handle.to_json(), plugin.logs(handle)):
        assert "secret" not in shown


def test_secrets_in_its_log(start: Start) -> None:
    """What a service writes of a variable that is secret by its name is hidden."""
    tell = "import os; print(os.environ['API_TOKEN'], flush=True)"
    serve = "from http import server as s; s.test(s.SimpleHTTPRequestHandler, port={port})"
    command = [sys.executable, "-c", f"{tell}; {serve}"]
    plugin = HttpPlugin("api", command=command, env={"API_TOKEN": "hush-hush"})
    handle = start(plugin)
    assert plugin.logs(handle).startswith("***\n")
    failing = HttpPlugin("api", command=[sys.executable, "-c", f"{tell}; 1 / 0"])
    with pytest.raises(ProcessError) as caught:
        failing.with_env("API_TOKEN", "hush-hush").start()
    assert str(caught.value.log_tail).startswith("***\n")


SECRETS = {
    "Authorization": "Basic dXNlcjpwYXNzLXdvcmQ=",
    "X-Api-Key": "key-of-mine",
    "Cookie": "theme=dark; sid=session-of-mine",
}


def test_secrets_in_answers(start: Start) -> None:
    """What a service answers, and what a validator says, shows no secret that we gave it."""
    answer = "\n".join(["hush-hush", "pass-word", *SECRETS.values(), "session-of-mine"])
    serve = (
        "from http import server as s\n"
        "class H(s.BaseHTTPRequestHandler):\n"
        f"    def do_GET(self): self.send_error(500, explain={answer!r})\n"
        "s.HTTPServer(('{host}', {port}), H).serve_forever()"
    )
    plugin = HttpPlugin("api", command=[sys.executable, "-c", serve], start_timeout=0.5)
    plugin = plugin.with_env("DB_PASSWORD", "hush-hush")
    with pytest.raises(StartTimeoutError) as caught:
        plugin.with_health_check("/", headers=SECRETS).start()
    for shown in shown_by(caught.value):
        for secret in answer.splitlines():
            assert secret not in shown

    def validator(handle: ServiceHandle) -> None:
        raise RuntimeError("cannot log in with hush-hush")

    with pytest.raises(ServiceError, match="cannot log in with") as raised:
        plugin.with_health_check("/", 500).with_validator(validator).start()
    assert "hush-hush" not in str(raised.value) + repr(raised.value)


def test_secrets_of_others_in_its_log(tmp_path: Path) -> None:
    """What it was given of another service's secrets is hidden, whatever it was given it as."""
    tell = "import os; print('I am', os.environ['WHO'], flush=True)"
    serve = "from http import server as s; s.test(s.SimpleHTTPRequestHandler, port={port})"
    (tmp_path / "cleanroom.toml").write_text(f"""
        [services.cache]
        plugin = "redis"
        password = "hush-hush"
        backend = "process"
        [services.api]
        plugin = "http"
        command = ["python", "-c", "{tell}; {serve}"]
        env = {{ WHO = "a friend of {{cache.password}}" }}
    """)
    with CleanroomEnvironment.from_config(tmp_path) as env:
        env.start("api")
        plugin = env.plugin("api")
        assert isinstance(plugin, HttpPlugin)
        assert plugin.logs(env["api"]).startswith("I am a friend of ***\n")


def shown_by(error: BaseException) -> list[str]:
    """What an error of ours shows, and each that it was raised from."""
    cause = error.__cause__
    return [str(error), repr(error), *(shown_by(cause) if cause else [])]


# --------------------------------------------------------------------------- health


def asked_in_time(plugin: HttpPlugin, handle: ServiceHandle) -> HealthStatus:
    began = time.monotonic()
    status = plugin.health_check(handle)
    assert time.monotonic() - began < BOUND + 0.5  # a busy machine may be late in telling
    return status


def test_unhealthy_when_killed_or_frozen(shop: Shop) -> None:
    """A frozen service is unhealthy within the bound, whatever its health check waits; so is a
    killed one."""
    plugin = shop().with_health_check("/health", timeout=30)
    handle = plugin.start()
    os.kill(int(handle.require("pid")), signal.SIGSTOP)
    assert asked_in_time(plugin, handle) is HealthStatus.UNHEALTHY
    os.kill(int(handle.require("pid")), signal.SIGCONT)
    assert asked_in_time(plugin, handle) is HealthStatus.HEALTHY
    plugin.kill(handle)
    assert asked_in_time(plugin, handle) is HealthStatus.UNHEALTHY
    plugin.stop(handle)


def test_a_validator_that_hangs(shop: Shop, start: Start) -> None:
    """A health check answers within its bound even when a validator does not."""
    hang = [False]

    def validate(handle: ServiceHandle) -> None:
        if hang[0]:
            time.sleep(6)

    plugin = shop().with_health_check().with_validator(validate)
    handle = start(plugin)
    hang[0] = True
    assert asked_in_time(plugin, handle) is HealthStatus.UNHEALTHY


# ------------------------------------------------------------------------------ TLS


def test_tls(shop: Shop, start: Start, certificate: Path) -> None:
    """A service with a certificate of its own authority, checked or explicitly not."""
    command = ("--certificate", str(certificate))
    for plugin in (
        shop(*command).with_health_check().with_tls(ca=certificate),
        shop(*command).with_health_check().with_tls(verify=False),
        shop(*command, tls={"ca": str(certificate)}).with_health_check(),
        shop(*command, tls={"verify": False}).with_health_check(),
    ):
        handle = start(plugin)
        assert handle.url == f"https://127.0.0.1:{handle.port}"
        assert plugin.health_check(handle) is HealthStatus.HEALTHY
        service = HttpService(handle)
        assert "OK" in service.session.get("/health").text  # nor is there a warning
        service.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ca": __file__}, "has no certificates"),
        ({"ca": "/no/such/file"}, "ca is '/no/such/file'"),
        ({"verify": "no"}, "verify is 'no'"),
        ({"ca": __file__, "verify": False}, "ca was given and verify is false"),
    ],
)
def test_tls_that_cannot_be(options: dict[str, object], says: str) -> None:
    """Certificates that are not there, and contradictions, are refused."""
    with pytest.raises(ValidationError, match=says):
        HttpPlugin("api", command=["x"]).with_tls(**options)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=says):
        HttpPlugin("api", command=["x"], tls=options)


# ------------------------------------------------------------------------- sessions


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        ("", "/echo", "/echo"),
        ("", "echo", "/echo"),
        ("/", "/echo", "/echo"),
        ("/base", "/echo", "/base/echo"),
        ("/base/", "echo?a=1", "/base/echo?a=1"),
        ("/base/v1", "/../echo", "/base/echo"),
        ("", "/echo:batch", "/echo:batch"),
        ("/base", "/echo//x", "/base/echo//x"),
    ],
)
def test_paths_of_a_session(running: ServiceHandle, base: str, path: str, url: str) -> None:
    """A path is one below the base URL, whatever signs are in it."""
    with ServiceSession(running.url + base) as session:
        response = session.get(path)
        assert response.request.url == running.url + url


def test_whole_urls_of_a_session(running: ServiceHandle) -> None:
    """A whole URL is taken as it is."""
    with ServiceSession("http://nowhere.example/base") as session:
        assert session.get(f"{running.url}/health").text == "all is OK here"
        assert session.get(f"HTTP{running.url[4:]}/health").ok


def test_a_session_is_one_of_requests(
    running: ServiceHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It posts, sends headers, keeps cookies, and takes no proxy of the environment's."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with ServiceSession(running.url, headers={"X-Shop": "1"}) as session:
        answer = session.post("/echo", json={"a": 1}, headers={"X-Other": "2"})
        assert answer.json()["method"] == "POST"
        sent = answer.json()["headers"]
        assert (sent["x-shop"], sent["x-other"]) == ("1", "2")
        assert sent["content-type"] == "application/json"
        assert session.get("/echo").json()["headers"]["cookie"] == "visited=yes"


def test_a_session_does_not_wait_for_ever(running: ServiceHandle) -> None:
    """A request without a timeout has one all the same; its own wins."""
    with ServiceSession(running.url, timeout=0.2) as session:
        with pytest.raises(requests.Timeout):
            session.get("/slow")
        with pytest.raises(requests.Timeout):
            session.get("/slow", timeout=0.1)


def test_sessions_of_a_service(running: ServiceHandle) -> None:
    """There is one session for all; a new one has no cookies."""
    service = HttpService(running)
    assert service.url == running.url
    assert service.session is service.session
    service.session.get("/echo")
    assert "visited" in service.session.cookies
    assert "visited" not in service.new_session().cookies
    assert "api" in repr(service)
    service.close()


# ----------------------------------------------------------------- somebody else's


def test_a_service_somebody_else_runs(running: ServiceHandle) -> None:
    """A URL is enough, base path and all; the service is asked, and left as it is."""
    url = f"{running.url}/base"
    plugin = HttpPlugin("shop", url=url).with_health_check("/health", "OK")
    handle = plugin.start()
    assert (handle.url, handle.require("backend")) == (url, "external")
    assert (handle.host, handle.port) == (running.host, running.port)
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    service = HttpService(handle)
    assert service.session.get("/echo").request.url == f"{url}/echo"
    service.close()
    plugin.stop(handle)
    assert told(running)["method"] == "GET"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is nobody's address")
def test_a_service_at_another_address() -> None:
    """Where somebody else's service is, is not where a process of ours would listen: it is asked
    at once, there."""

    class Well(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.2", 0), Well) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.2:{server.server_port}"
            plugin = HttpPlugin("api", url=url, start_timeout=30)
            began = time.monotonic()
            plugin.stop(plugin.start())
            assert time.monotonic() - began < 15
        finally:
            server.shutdown()
            thread.join()


def test_credentials_in_a_url(running: ServiceHandle) -> None:
    """User and password of a base URL are sent, and show nowhere."""
    at = running.url.removeprefix("http://")
    plugin = HttpPlugin("shop", url=f"http://user:secret@{at}").with_health_check(
        "/echo", {"headers": {"authorization": "Basic dXNlcjpzZWNyZXQ="}}
    )
    handle = plugin.start()
    service = HttpService(handle)
    assert service.session.get("/echo").json()["headers"]["authorization"].startswith("Basic ")
    service.close()
    for shown in (repr(plugin), repr(handle), repr(service), str(handle)):
        assert "secret" not in shown
    plugin.stop(handle)


# --------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"command": "python -m shop"}, "command is 'python -m shop'"),
        ({"command": []}, "command is"),
        ({"command": [""]}, "command is"),
        ({"command": ["python", 1]}, "command is"),
        ({"command": ["python", "a\0"]}, "command is"),
        ({"image": "my-api:1"}, "port is None"),
        ({"image": "my-api:1", "port": 0}, "port is 0"),
        ({"image": "my-api:1", "port": "http"}, "port is 'http'"),
        ({"image": "My Api", "port": 80}, "image"),
        ({"command": ["x"], "env": {"A B": "x"}}, "env has the key 'A B'"),
        ({"command": ["x"], "env": {"A": 1}}, "env has no text for A"),
        ({"command": ["x"], "env": ["A=1"]}, "env is no table"),
        ({"command": ["x"], "cwd": "/no/such/folder"}, "cwd is"),
        ({"command": ["x"], "health": "/health"}, "health is"),
        ({"command": ["x"], "health": {"url": "/"}}, r"health\.url: unknown key"),
        ({"command": ["x"], "health": {"expect": 1, "matches": "x"}}, "expect and matches"),
        ({"command": ["x"], "health": {"matches": "("}}, r"^health\.matches is"),
        ({"command": ["x"], "health": {"matches": 1}}, r"^health\.matches is"),
        ({"command": ["x"], "health": {"expect": True}}, r"^health\.expected is True"),
        ({"command": ["x"], "tls": True}, "tls is no table"),
        ({"command": ["x"], "tls": {"cert": "x"}}, r"tls\.cert: unknown key"),
        (
            {"command": ["x"], "health": {"pth": "/"}},
            r"health\.pth: .*\s+hint: did you mean 'path'",
        ),
        ({"command": ["x"], "health": {"timeout": "1"}}, r"^health\.timeout is '1'"),
        ({"command": ["x"], "health": {"path": "x"}}, r"^health\.path is 'x'"),
        (
            {"command": ["x"], "tls": {"verfy": "x"}},
            r"tls\.verfy: .*\s+hint: did you mean 'verify'",
        ),
        ({"command": ["x"], "tls": {"verify": 1}}, r"^tls\.verify is 1"),
        ({"url": "ftp://host"}, "url is"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, object], says: str) -> None:
    """What is malformed is refused when the plugin is made, and the error names it."""
    with pytest.raises(ValidationError, match=says):
        HttpPlugin("api", **arguments)  # type: ignore[arg-type]


def test_plugins_do_not_change() -> None:
    """Each `with_...` leaves the plugin it was called on as it was."""
    plugin = HttpPlugin("api", command=["x"])
    before = dict(vars(plugin))
    changed = plugin.with_health_check().with_env("A", "b").with_tls().with_validator(json.loads)
    assert vars(plugin) == before
    assert vars(changed) != before


@pytest.mark.parametrize("cwd", ["", 'cwd = "place"'])
def test_a_declared_command_runs_where_it_is_declared(tmp_path: Path, cwd: str) -> None:
    """Its working directory is relative to the file, and the file's folder unless said."""
    folder = tmp_path / "place" if cwd else tmp_path
    folder.mkdir(exist_ok=True)
    (folder / "front.txt").write_text("here")
    (tmp_path / "cleanroom.toml").write_text(f"""
        [services.api]
        plugin = "http"
        command = ["python", "-m", "http.server", "{{port}}", "--bind", "{{host}}"]
        health = {{ path = "/front.txt", expect = "here" }}
        {cwd}
    """)
    with CleanroomEnvironment.from_config(tmp_path) as env:
        assert env.start("api")


def test_declared_certificates_are_relative_to_the_file(tmp_path: Path, certificate: Path) -> None:
    """`tls.ca` is looked for beside the file that names it."""
    (tmp_path / "cleanroom.toml").write_text(
        '[services.api]\nplugin = "http"\nurl = "https://127.0.0.1:1"\ntls = { ca = "ca.pem" }\n'
    )
    (declared,) = load_config(tmp_path)
    with pytest.raises(ConfigurationError, match=f"ca is '{tmp_path}/ca.pem'"):
        declared.build({})
    shutil.copy(certificate, tmp_path / "ca.pem")
    assert declared.build({})
