"""The choice of a backend: what was asked for, what is there, and what the reason says."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cleanroom import CleanroomError, ConfigurationError, ContainerError, ProcessError, ServiceError
from cleanroom_runtime import LocalServer
from cleanroom_runtime._choose import Choice, Wanted, choose

NEW = LocalServer(Path("/opt/new/bin/server"), "18.6", "the embedded extra")
OLD = LocalServer(Path("/usr/lib/old/bin/server"), "15.20", "/usr/lib/old/bin")

DIGEST = f"sha256:{'0' * 64}"


@pytest.fixture(autouse=True)
def _nothing_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLEANROOM_BACKEND", raising=False)


@pytest.fixture
def engine(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Somebody listens where the engine is said to be, which is all that is asked of one."""
    url = f"unix://{short_folder}/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", url)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{short_folder}/docker.sock")
        listener.listen()
        yield url


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> str:
    """Nobody listens where the engine is said to be."""
    url = "unix:///nobody/listens/here.sock"
    monkeypatch.setenv("DOCKER_HOST", url)
    return url


def wanted(
    image: str | None = None, servers: Iterable[LocalServer] = (NEW, OLD), **more: Any
) -> Wanted:
    known: dict[str, Any] = {
        "service": "my-db",
        "backend": "auto",
        "image": image,
        "default_image": "server:18",
        "official_image": "server",
        "url": None,
        "local_servers": lambda: servers,
        "install_hint": lambda major: f"install server {major}" if major else "install a server",
    }
    return Wanted(**{**known, **more})


def refused(wanted: Wanted, kind: type[CleanroomError]) -> CleanroomError:
    with pytest.raises(CleanroomError) as caught:
        choose(wanted)
    assert type(caught.value) is kind
    assert caught.value.service == "my-db"
    assert caught.value.hint
    return caught.value


# ------------------------------------------------------------- auto, an image named


@pytest.mark.parametrize("image", ["server:15-alpine", "server:18", "postgis/server:15", "server"])
def test_a_named_image_runs_if_an_engine_answers(engine: str, image: str) -> None:
    """An image that was named is a promise: it runs, whatever servers are here."""
    choice = choose(wanted(image))
    assert (choice.backend, choice.image) == ("container", image)
    assert choice.engine is not None
    assert choice.engine.url == engine
    assert choice.reason == f"image {image} was named and an engine answers (DOCKER_HOST)"


@pytest.mark.parametrize(
    ("image", "server"),
    [
        ("server:15-alpine", OLD),
        ("server:15.2", OLD),
        ("docker.io/library/server:15", OLD),
        ("server:18beta1", NEW),
        ("server", NEW),
        ("server:latest", NEW),
    ],
)
def test_the_same_major_version_stands_in(no_engine: str, image: str, server: LocalServer) -> None:
    """Without an engine a local server of the promised version serves, and the reason says so."""
    choice = choose(wanted(image))
    assert (choice.backend, choice.server) == ("process", server)
    assert choice.reason == (
        f"no container engine answers: version {server.version} from {server.source} stands in "
        f"for {image}"
    )


@pytest.mark.parametrize(
    ("image", "because"),
    [
        ("server:16", "it promises version 16"),
        ("postgis/server:15", "it is not the official image"),
        ("registry.example:5000/server:15", "it is not the official image"),
        (f"server@{DIGEST}", "its digest promises that very image"),
        (f"server:15@{DIGEST}", "its digest promises that very image"),
        ("server:alpine", "its tag 'alpine' names no version"),
    ],
)
def test_nothing_else_stands_in(no_engine: str, image: str, because: str) -> None:
    """Another version or another image is refused; the error says which versions are where."""
    error = refused(wanted(image), ServiceError)
    assert error.message == (
        f"image {image} cannot run, because no container engine answers (DOCKER_HOST {no_engine}: "
        f"no such socket), and no server on this machine can stand in for it, because {because}; "
        "found here: 18.6 in /opt/new/bin (the embedded extra), 15.20 in /usr/lib/old/bin"
    )


def test_the_hint_helps_in_this_very_case(no_engine: str) -> None:
    """Where a version is missing the hint says how to get that one, or how to use what is here."""
    assert refused(wanted("server:16"), ServiceError).hint == (
        "start that engine, or change DOCKER_HOST; or install server 16; or name no image, or one "
        "of server:18, server:15, to use what was found here"
    )
    assert "install server" not in str(refused(wanted("postgis/server:15"), ServiceError).hint)
    nothing_here = refused(wanted("server:16", ()), ServiceError)
    assert nothing_here.message.endswith("found here: none")
    assert nothing_here.hint == "start that engine, or change DOCKER_HOST; or install server 16"


# ---------------------------------------------------------- auto, no image named


def test_the_first_local_server_serves_where_no_image_was_named(engine: str) -> None:
    """With no image a local server comes before an engine."""
    choice = choose(wanted())
    assert (choice.backend, choice.server) == ("process", NEW)
    assert choice.reason == "no image was named: version 18.6 from the embedded extra"


def test_no_more_servers_are_looked_for_than_needed(no_engine: str) -> None:
    """The search ends with the first server that fits."""
    looked_for: list[LocalServer] = []

    def servers() -> Iterator[LocalServer]:
        for server in (NEW, OLD):
            looked_for.append(server)
            yield server

    choose(wanted(local_servers=servers))
    assert looked_for == [NEW]
    choose(wanted("server:15", local_servers=servers))
    assert looked_for == [NEW, NEW, OLD]


def test_the_default_image_runs_where_there_is_no_local_server(engine: str) -> None:
    """With neither image nor server, the default image runs on an engine."""
    choice = choose(wanted(servers=()))
    assert (choice.backend, choice.image) == ("container", "server:18")
    assert choice.reason == (
        "no server was found on this machine, and an engine answers (DOCKER_HOST)"
    )


def test_neither_server_nor_engine(no_engine: str) -> None:
    """With nothing at all the error says what was looked for, and the hint names every way out."""
    error = refused(wanted(servers=()), ServiceError)
    assert error.message == (
        "no server was found on this machine, and no container engine answers "
        f"(DOCKER_HOST {no_engine}: no such socket)"
    )
    assert error.hint == "install a server; or start that engine, or change DOCKER_HOST"


def test_no_engine_is_asked_for_a_plugin_without_a_default_image() -> None:
    """Where there is no image that could run, an engine is no way out."""
    error = refused(wanted(servers=(), default_image=None), ServiceError)
    assert error.message == "no server was found on this machine"
    assert error.hint == "install a server"


# ------------------------------------------------------------------ asked for


def test_a_container_asked_for(engine: str) -> None:
    """A container runs the named image, else the default one."""
    choice = choose(wanted("server:15", backend="container"))
    assert (choice.backend, choice.image) == ("container", "server:15")
    assert choice.reason == "backend='container' was asked for"
    assert choose(wanted(backend="container")).image == "server:18"
    error = refused(wanted(backend="container", default_image=None), ConfigurationError)
    assert error.message == "backend='container' was asked for, but no image was named"


def test_a_container_asked_for_without_an_engine(no_engine: str) -> None:
    """Nothing stands in for a container that was asked for."""
    error = refused(wanted("server:15", backend="container"), ContainerError)
    assert error.message == (
        "backend='container' was asked for, but no container engine answers "
        f"(DOCKER_HOST {no_engine}: no such socket)"
    )
    assert error.backend == "container"
    assert "backend='process'" in str(error.hint)


def test_a_process_asked_for(engine: str) -> None:
    """A process runs a server of the named image's version, else the best one."""
    assert choose(wanted(backend="process")).server == NEW
    choice = choose(wanted("server:15", backend="process"))
    assert choice.server == OLD
    assert choice.reason == (
        "backend='process' was asked for: version 15.20 from /usr/lib/old/bin stands in for "
        "server:15"
    )


def test_a_process_asked_for_that_nothing_can_serve(engine: str) -> None:
    """No engine stands in for a process that was asked for; the promise of an image still holds."""
    error = refused(wanted("server:16", backend="process"), ProcessError)
    assert "can stand in for server:16, because it promises version 16; found" in error.message
    error = refused(wanted(backend="process", servers=()), ProcessError)
    assert error.message == (
        "backend='process' was asked for, but no server was found on this machine"
    )
    assert error.hint == "install a server"


def test_a_url_was_given(engine: str) -> None:
    """A URL means the server that somebody else runs, unless another backend was asked for."""
    url = "db://somewhere"
    assert choose(wanted("server:15", url=url)) == Choice("external", "a URL was given", url=url)
    assert choose(wanted("server:15", url=url, backend="container")).backend == "container"


def test_an_external_server_asked_for_without_a_url() -> None:
    """The hint names the variable that the URL can stand in."""
    error = refused(wanted(backend="external"), ConfigurationError)
    assert error.message == (
        "backend='external' was asked for, but there is no URL of a running server"
    )
    assert "CLEANROOM_MY_DB_URL" in str(error.hint)


# ---------------------------------------------------------------- the environment


@pytest.mark.parametrize(
    ("variable", "given"),
    [("process", "container"), ("container", "process"), ("external", "auto")],
)
def test_the_environment_wins(
    engine: str, monkeypatch: pytest.MonkeyPatch, variable: str, given: str
) -> None:
    """`CLEANROOM_BACKEND` wins over what code or configuration say, and the reason names it."""
    monkeypatch.setenv("CLEANROOM_BACKEND", variable)
    choice = choose(wanted(backend=given, url="db://somewhere"))
    assert choice.backend == variable
    assert choice.reason.startswith(f"CLEANROOM_BACKEND={variable} is set")


def test_the_environment_may_leave_the_choice_open(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`CLEANROOM_BACKEND=auto` wins as well; an empty one says nothing."""
    monkeypatch.setenv("CLEANROOM_BACKEND", "auto")
    assert choose(wanted(backend="container")).backend == "process"
    monkeypatch.setenv("CLEANROOM_BACKEND", "")
    assert choose(wanted(backend="container")).backend == "container"


def test_the_environment_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown backend in the environment is an error that names the known ones."""
    monkeypatch.setenv("CLEANROOM_BACKEND", "docker")
    error = refused(wanted(), ConfigurationError)
    assert error.message == "CLEANROOM_BACKEND is 'docker'"
    assert "auto, process, container, external" in str(error.hint)
