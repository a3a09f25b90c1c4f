import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cleanroom import ContainerError
from cleanroom_runtime import _engine
from cleanroom_runtime._engine import Engine, NoEngine, find_engine

VARIABLES = (
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_TLS",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, short_folder: Path) -> Path:
    """A user with nothing set up, on a machine without an engine; returns the home."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(short_folder))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_folder / "runtime"))
    monkeypatch.setattr(_engine, "_DOCKER_SOCKET", str(short_folder / "docker.sock"))
    monkeypatch.setattr(_engine, "_PODMAN_SOCKET", str(short_folder / "podman.sock"))
    return short_folder


@pytest.fixture
def listen() -> Iterator[object]:
    """Make somebody listen at a path."""
    sockets: list[socket.socket] = []

    def listen(path: Path) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        sock = socket.socket(socket.AF_UNIX)
        sockets.append(sock)
        sock.bind(str(path))
        sock.listen()
        return f"unix://{path}"

    yield listen
    for sock in sockets:
        sock.close()


def context(home: Path, name: str, endpoint: dict[str, object], *, current: bool = True) -> Path:
    """Make a docker context as `docker context create` does; returns the folder of its keys."""
    folder = hashlib.sha256(name.encode()).hexdigest()
    meta = home / ".docker/contexts/meta" / folder / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": name, "Endpoints": {"docker": endpoint}}))
    if current:
        (home / ".docker/config.json").write_text(json.dumps({"currentContext": name}))
    return home / ".docker/contexts/tls" / folder / "docker"


def test_nothing_anywhere(bare: Path) -> None:
    """Without an engine, every place that was asked is named, with a reason."""
    found = find_engine()
    assert isinstance(found, NoEngine)
    assert [place for place, _ in found.tried] == [
        f"default socket unix://{bare}/docker.sock",
        f"rootless Docker unix://{bare}/runtime/docker.sock",
        f"Docker Desktop unix://{bare}/.docker/run/docker.sock",
        f"rootless Podman unix://{bare}/runtime/podman/podman.sock",
        f"Podman unix://{bare}/podman.sock",
    ]
    assert {reason for _, reason in found.tried} == {"no such socket"}
    error = found.error("db")
    assert isinstance(error, ContainerError)
    assert (error.service, error.backend) == ("db", "container")
    assert all(place in error.message for place, _ in found.tried)
    assert error.hint == "start Docker or Podman, or name an engine in DOCKER_HOST"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("docker.sock", "default socket"),
        ("runtime/docker.sock", "rootless Docker"),
        (".docker/run/docker.sock", "Docker Desktop"),
        ("runtime/podman/podman.sock", "rootless Podman"),
        ("podman.sock", "Podman"),
    ],
)
def test_usual_places(bare: Path, listen, path: str, source: str) -> None:
    """An engine that listens in one of the usual places is found."""
    url = listen(bare / path)
    found = find_engine()
    assert found == Engine(url, source)
    assert found.local
    assert found.answers()
    assert found.warden_record() == {"socket": str(bare / path)}


def test_first_that_answers(bare: Path, listen) -> None:
    """A socket nobody listens at any more is passed over for one that answers."""
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(bare / "docker.sock"))
    stale.close()
    url = listen(bare / "podman.sock")
    assert find_engine() == Engine(url, "Podman")


def test_docker_host_wins(bare: Path, listen, monkeypatch: pytest.MonkeyPatch) -> None:
    """DOCKER_HOST wins over a context and over the default socket."""
    listen(bare / "docker.sock")
    context(bare, "other", {"Host": listen(bare / "other.sock")})
    url = listen(bare / "mine.sock")
    monkeypatch.setenv("DOCKER_HOST", url)
    assert find_engine() == Engine(url, "DOCKER_HOST")


def test_docker_host_is_the_one_meant(bare: Path, listen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the engine that DOCKER_HOST names is silent, no other is taken for it."""
    listen(bare / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{bare}/nowhere.sock")
    found = find_engine()
    assert isinstance(found, NoEngine)
    assert found.tried == ((f"DOCKER_HOST unix://{bare}/nowhere.sock", "no such socket"),)
    assert found.hint == "start that engine, or change DOCKER_HOST"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("/var/run/docker.sock", "begins with unix://"),
        ("npipe:////./pipe/docker_engine", "begins with unix://"),
        ("unix://docker.sock", "not an absolute path"),
        ("tcp://", "begins with unix://"),
        ("tcp://somewhere:port", "Port could not be cast"),
        ("tcp://somewhere:70000", "Port out of range"),
    ],
)
def test_malformed_docker_host(value: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A DOCKER_HOST that is no address says what is wrong with it."""
    monkeypatch.setenv("DOCKER_HOST", value)
    found = find_engine()
    assert isinstance(found, NoEngine)
    [(place, reason)] = found.tried
    assert place == f"DOCKER_HOST {value!r}"
    assert problem in reason
    assert found.hint == "correct DOCKER_HOST, or unset it"


def test_empty_docker_host_is_none(bare: Path, listen, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty DOCKER_HOST counts as none."""
    monkeypatch.setenv("DOCKER_HOST", "")
    url = listen(bare / "docker.sock")
    assert find_engine() == Engine(url, "default socket")


def test_current_context(bare: Path, listen) -> None:
    """The current docker context names the engine."""
    url = listen(bare / "desktop.sock")
    context(bare, "desktop", {"Host": url})
    assert find_engine() == Engine(url, "docker context 'desktop'")


def test_context_in_the_environment(bare: Path, listen, monkeypatch: pytest.MonkeyPatch) -> None:
    """DOCKER_CONTEXT wins over the current context."""
    context(bare, "one", {"Host": listen(bare / "one.sock")})
    url = listen(bare / "two.sock")
    context(bare, "two", {"Host": url}, current=False)
    monkeypatch.setenv("DOCKER_CONTEXT", "two")
    assert find_engine() == Engine(url, "docker context 'two'")


def test_default_context(bare: Path, listen, monkeypatch: pytest.MonkeyPatch) -> None:
    """The context `default` means the usual places."""
    context(bare, "one", {"Host": listen(bare / "one.sock")})
    url = listen(bare / "docker.sock")
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert find_engine() == Engine(url, "default socket")


def test_context_in_another_folder(bare: Path, listen, monkeypatch: pytest.MonkeyPatch) -> None:
    """DOCKER_CONFIG says where contexts are."""
    url = listen(bare / "x.sock")
    context(bare, "x", {"Host": url})
    (bare / ".docker").rename(bare / "elsewhere")
    assert isinstance(find_engine(), NoEngine)
    monkeypatch.setenv("DOCKER_CONFIG", str(bare / "elsewhere"))
    assert find_engine() == Engine(url, "docker context 'x'")


def test_context_that_is_not_there(bare: Path, listen, monkeypatch: pytest.MonkeyPatch) -> None:
    """A context that does not exist is an error, not a reason to take another engine."""
    listen(bare / "docker.sock")
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    found = find_engine()
    assert isinstance(found, NoEngine)
    assert found.reason.startswith("docker context 'gone': there is no such context in ")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe"])
def test_broken_docker_configuration(bare: Path, listen, content: bytes) -> None:
    """A broken docker configuration counts as none."""
    (bare / ".docker").mkdir()
    (bare / ".docker/config.json").write_bytes(content)
    url = listen(bare / "docker.sock")
    assert find_engine() == Engine(url, "default socket")


def test_context_with_keys(bare: Path) -> None:
    """A context with keys is spoken to by TLS, with those keys."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        keys = context(bare, "far", {"Host": url, "SkipTLSVerify": False})
        keys.mkdir(parents=True)
        found = find_engine()
    assert found == Engine(
        url, "docker context 'far'", tls=True, certificates=str(keys), verify=True
    )
    assert found.warden_record()["tls"] == {"verify": True, "certificates": str(keys)}


def test_tls_by_environment(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DOCKER_TLS_VERIFY and DOCKER_CERT_PATH mean what they mean to docker."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("DOCKER_HOST", url)
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(bare))
        assert find_engine() == Engine(
            url, "DOCKER_HOST", tls=True, certificates=str(bare), verify=True
        )


def test_tcp_that_nobody_listens_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TCP address where nobody listens says so."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("DOCKER_HOST", url)
    found = find_engine()
    assert isinstance(found, NoEngine)
    assert found.tried == ((f"DOCKER_HOST {url}", "nobody listens there"),)


def test_host_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that cannot be resolved is named, with the resolver's reason."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://engine.invalid")
    found = find_engine()
    assert isinstance(found, NoEngine)
    [(place, reason)] = found.tried
    assert place == "DOCKER_HOST tcp://engine.invalid:2375"
    assert reason


def test_engine_that_does_not_accept(bare: Path) -> None:
    """An engine too busy to accept a connection is given up after a second."""
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as other:
        server.bind(str(bare / "docker.sock"))
        server.listen(0)
        other.connect(str(bare / "docker.sock"))
        began = time.monotonic()
        found = find_engine()
    assert time.monotonic() - began < 2
    assert isinstance(found, NoEngine)
    assert found.tried[0][1] in ("no answer in time", "nobody listens there")


def test_permission_denied(bare: Path, listen) -> None:
    """A socket this user may not open is told from one that is not there."""
    listen(bare / "docker.sock")
    (bare / "docker.sock").chmod(0)
    found = as_ordinary_user(bare)
    assert f"default socket unix://{bare}/docker.sock: permission denied" in found
    assert "let this user open the socket" in found


def as_ordinary_user(folder: Path) -> str:
    """Return what an ordinary user learns, in a child of this process if that is root."""
    if os.getuid() != 0:
        found = find_engine()
        assert isinstance(found, NoEngine)
        return str(found.error())
    folder.chmod(0o755)
    code = (
        "import os; from cleanroom_runtime import _engine; os.setuid(65534); "
        f"_engine._DOCKER_SOCKET = {_engine._DOCKER_SOCKET!r}; "
        "print(_engine.find_engine().error())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    ("url", "host", "local"),
    [
        ("unix:///var/run/docker.sock", "127.0.0.1", True),
        ("tcp://127.0.0.1:2375", "127.0.0.1", True),
        ("tcp://localhost:2375", "localhost", True),
        ("tcp://[::1]:2375", "::1", True),
        ("tcp://192.0.2.7:2375", "192.0.2.7", False),
        ("tcp://docker:2375", "docker", False),
        ("ssh://me@far.example", "far.example", False),
    ],
)
def test_where_ports_are(url: str, host: str, local: bool) -> None:
    """Ports of an engine elsewhere are reached at its own address."""
    engine = Engine(url, "a test")
    assert (engine.host, engine.local) == (host, local)


def test_ssh_is_trusted() -> None:
    """An engine behind ssh is not asked, and is reached by the ssh of this machine."""
    engine = Engine("ssh://me@far.example:2222", "a test")
    assert engine.answers()
    assert engine.warden_record() == {"ssh": ["-l", "me", "-p", "2222", "--", "far.example"]}


def test_cheap() -> None:
    """To look for an engine, neither docker nor an HTTP client is imported."""
    code = (
        "import sys; from cleanroom_runtime._engine import find_engine; find_engine(); "
        "print({'docker', 'requests', 'http.client', 'ssl'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
