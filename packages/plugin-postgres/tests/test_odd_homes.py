"""PostgreSQL as a process in surroundings that are not a developer's own machine.

Containers show most of them: this machine's Python and packages in a container as the engine makes
it, without user namespaces, with 64 MB of shared memory, with limits and other users.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cleanroom_postgres_server import PROGRAMS
from tests.leftovers import gone_within, until

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[3]
SITE_PACKAGES = sysconfig.get_path("purelib")
SERVER = PROGRAMS.parents[2]
"""The package with the embedded server."""
MEGABYTE = 1024 * 1024
GRACE = 30
"""Seconds for what was told to stop to be gone. How fast it is, is another matter: test_cleanup."""

SUITE = """
    import json, os, pathlib, pytest

    @pytest.mark.parametrize("number", range(2))
    def test_it(postgres_db, postgres_service, number):
        with postgres_db.connect() as connection:
            connection.execute("CREATE TABLE t (i int)")
            (data,) = connection.execute("SHOW data_directory").fetchone()
        metadata = dict(postgres_service.metadata)
        facts = {
            "data": data,
            "owner": os.stat(data).st_uid,
            "server": os.stat(f"/proc/{metadata['pid']}").st_uid,
            "executable": metadata["executable"],
            "program": pathlib.Path(f"/proc/{metadata['pid']}/cmdline").read_text().split("\\0")[0],
            "run": postgres_service.id.partition("-")[0],
        }
        print("FACTS", json.dumps(facts))
"""

# Runs in the container as its first process: runs the suite, then looks for what is left.
LOOKS = """
    import ctypes, glob, json, os, subprocess, sys, time
    argv = json.loads(sys.argv[1])
    before = set(glob.glob("/tmp/*") + glob.glob("/dev/shm/*"))
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans become our children
    suite = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 30
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        left = [path for path in glob.glob("/proc/[0-9]*/cmdline")
                if int(path.split("/")[2]) not in (1, os.getpid())]
        left += sorted(set(glob.glob("/tmp/*") + glob.glob("/dev/shm/*")) - before)
        left += open("/proc/sysvipc/shm").read().splitlines()[1:]
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    print(json.dumps({"code": suite.returncode, "output": suite.stdout, "left": left}))
"""


@dataclass
class Outcome:
    """How a suite went.

    Attributes:
        code: pytest's exit code.
        output: What it wrote.
        left: What was left some time after it had ended.
        facts: What its tests have found.
    """

    code: int
    output: str
    left: list[str]

    @property
    def facts(self) -> dict[str, Any]:
        lines = [line for line in self.output.splitlines() if "FACTS " in line]
        assert lines, self.output
        found: dict[str, Any] = json.loads(lines[-1].partition("FACTS ")[2])
        return found

    def assert_passed(self) -> None:
        assert self.code == 0, self.output
        assert "2 passed" in self.output
        assert self.left == []


@pytest.fixture
def in_container(docker_engine: DockerClient, postgres_image: str) -> Callable[..., Outcome]:
    """Runs a suite in a container with this machine's Python, and returns how it went."""

    def run(
        *,
        packages: str = "/opt/packages",
        first: str = ":",
        environment: dict[str, str] | None = None,
        suite: str = SUITE,
        **options: Any,
    ) -> Outcome:
        sources = [f"/opt/repository/packages/{name}/src" for name in SOURCES]
        server = f"{packages}-server"
        script = (
            "mkdir -p /opt/suite\n"
            f"cat > /opt/suite/test_it.py <<'END'\n{textwrap.dedent(suite)}\nEND\n"
            "cat > /opt/suite/pyproject.toml </dev/null\n"
            f"cat > /opt/suite/looks.py <<'END'\n{textwrap.dedent(LOOKS)}\nEND\n"
            f"{first}\n"
            'cd /opt/suite && exec $AS /opt/python/bin/python3 looks.py "$0"\n'
        )
        argv = ["/opt/python/bin/python3", "-m", "pytest", "-q", "-s"]
        plugins = ["-p", "no:randomly", "-p", "no:cacheprovider"]
        container = docker_engine.containers.create(
            postgres_image,
            entrypoint=["/bin/sh", "-c", script],
            command=[json.dumps([*argv, *plugins, "/opt/suite"])],
            environment={
                "LD_LIBRARY_PATH": "/opt/python/lib",
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONPATH": ":".join([packages, server, *sources]),
                "CLEANROOM_BACKEND": "process",
                "HOME": "/root",
                **(environment or {}),
            },
            volumes=[
                f"{sys.base_prefix}:/opt/python:ro",
                f"{SITE_PACKAGES}:{packages}:ro",
                f"{SERVER}:{server}/{SERVER.name}:ro",
                f"{REPOSITORY}:/opt/repository:ro",
            ],
            **options,
        )
        try:
            container.start()
            container.wait(timeout=300)
            written = container.logs().decode()
            try:
                outcome = json.loads(written.splitlines()[-1])
            except (IndexError, ValueError):
                raise AssertionError(written) from None
        finally:
            container.remove(force=True, v=True)
        return Outcome(**outcome)

    return run


SOURCES = ("core", "runtime", "plugin-postgres")


# -------------------------------------------------------------------------- in containers


def test_root_without_namespaces(in_container: Callable[..., Outcome]) -> None:
    """Root in a container that allows no user namespaces runs the server as another user.

    The container has 64 MB of shared memory, as they do: the data lies on disk.
    """
    outcome = in_container()
    outcome.assert_passed()
    facts = outcome.facts
    assert facts["owner"] == facts["server"] != 0
    assert facts["executable"].startswith("/opt/packages-server/")
    assert not facts["data"].startswith("/dev/shm")


def test_root_with_packages_in_its_own_home(in_container: Callable[..., Outcome]) -> None:
    """Where the other user cannot reach the server's program, it runs from a copy."""
    outcome = in_container(packages="/root/environment/packages", first="chmod 700 /root")
    outcome.assert_passed()
    facts = outcome.facts
    assert facts["owner"] == facts["server"] != 0
    assert facts["program"].startswith("/tmp/cleanroom-0-r")


def test_the_cache_is_used_by_copies(in_container: Callable[..., Outcome]) -> None:
    """Servers that run from a copy share the cache, though each copy is in another place."""
    outcome = in_container(
        packages="/root/environment/packages",
        suite="""
            import pathlib
            from cleanroom_plugin_postgres import PostgresPlugin

            def test_twice():
                for _ in range(2):
                    plugin = PostgresPlugin()
                    plugin.stop(plugin.start())
                content = pathlib.Path("/root/.cache/cleanroom/postgres").glob("*/content.pack")
                assert len(list(content)) == 1
        """,
    )
    assert outcome.code == 0, outcome.output
    assert outcome.left == []


def test_a_temporary_directory_of_roots_own(in_container: Callable[..., Outcome]) -> None:
    """A TMPDIR that the other user cannot enter is not used for what that user needs."""
    outcome = in_container(first="mkdir -m 700 /root/t", environment={"TMPDIR": "/root/t"})
    outcome.assert_passed()


ORDINARY = "setpriv --reuid=1234 --regid=1234 --clear-groups --"


def with_user(home: str = "/home/user") -> str:
    """Return shell commands that add an ordinary user and hand the suite over to it."""
    return (
        f"echo user:x:1234:1234::{home}:/bin/sh >> /etc/passwd\n"
        f"mkdir -p {home}; chown 1234:1234 {home} /opt/suite; chmod 700 {home}\n"
        f"AS='{ORDINARY}'"
    )


def test_an_ordinary_user(in_container: Callable[..., Outcome]) -> None:
    """An ordinary user runs the server as itself, with its packages in its own private home."""
    outcome = in_container(
        packages="/home/user/packages",
        first=with_user(),
        environment={"HOME": "/home/user"},
    )
    outcome.assert_passed()
    facts = outcome.facts
    assert facts["owner"] == facts["server"] == 1234
    assert facts["program"].startswith("/home/user/packages-server/")


@pytest.mark.parametrize("home", ["/nonexistent", "/root", "/usr", ""])
def test_homes_that_cannot_be_written(in_container: Callable[..., Outcome], home: str) -> None:
    """A home that is missing, somebody else's, read-only or not set at all is no hindrance."""
    first = with_user() + ("\nunset HOME" if not home else "")
    outcome = in_container(first=first, environment={"HOME": home} if home else {})
    outcome.assert_passed()


def test_a_user_without_a_name(in_container: Callable[..., Outcome]) -> None:
    """A user id that no account has is what `initdb` does not accept: its words, and advice."""
    outcome = in_container(
        user="1234", environment={"HOME": "/"}, tmpfs={"/opt/suite": "mode=1777"}
    )
    assert outcome.code == 1, outcome.output
    assert "could not look up effective user ID 1234" in outcome.output
    assert outcome.left == []


def test_a_memory_limit(in_container: Callable[..., Outcome]) -> None:
    """Where a container's memory is limited the data lies on disk, though shared memory is big."""
    outcome = in_container(mem_limit=400 * MEGABYTE, shm_size=1024 * MEGABYTE)
    outcome.assert_passed()
    assert not outcome.facts["data"].startswith("/dev/shm")


def test_much_shared_memory(in_container: Callable[..., Outcome]) -> None:
    """Where there is room in memory the data lies there."""
    outcome = in_container(shm_size=1024 * MEGABYTE)
    outcome.assert_passed()
    assert outcome.facts["data"].startswith("/dev/shm/")


def test_a_read_only_system(in_container: Callable[..., Outcome]) -> None:
    """With nothing to write to but /tmp, from which no programs run, all works."""
    outcome = in_container(
        read_only=True, tmpfs={"/opt/suite": "mode=1777", "/tmp": "size=512m,mode=1777"}
    )
    outcome.assert_passed()


def test_copies_where_no_programs_run(in_container: Callable[..., Outcome]) -> None:
    """A server that must be copied to where no programs may run is an error that says so."""
    outcome = in_container(
        packages="/root/environment/packages",
        first="chmod 700 /root",
        tmpfs={"/tmp": "size=512m,mode=1777", "/var/tmp": "size=512m,mode=1777"},
    )
    assert outcome.code == 1, outcome.output
    assert "Permission denied" in outcome.output
    assert "ProcessError" in outcome.output
    assert outcome.left == []


@pytest.mark.parametrize("size", ["1m", "16m", "24m"])
def test_a_full_disk(in_container: Callable[..., Outcome], size: str) -> None:
    """A disk that is full is an error that says so, and nothing is left on it."""
    outcome = in_container(tmpfs={"/tmp": f"size={size},mode=1777"})
    assert outcome.code == 1, outcome.output
    assert "No space left on device" in outcome.output, outcome.output
    assert "Error" in outcome.output
    assert "INTERNALERROR" not in outcome.output
    assert outcome.left == []


def test_a_full_cache(in_container: Callable[..., Outcome]) -> None:
    """A cache that has no room is done without."""
    outcome = in_container(
        environment={"CLEANROOM_CACHE_DIR": "/cache"}, tmpfs={"/cache": "size=1m"}
    )
    outcome.assert_passed()


# ------------------------------------------------------------------------ on this machine


@pytest.fixture
def here(tmp_path: Path) -> Callable[..., Outcome]:
    """Runs a suite on this machine, and returns how it went."""

    def run(**environment: str) -> Outcome:
        (tmp_path / "test_it.py").write_text(textwrap.dedent(SUITE))
        (tmp_path / "pyproject.toml").touch()
        plugins = ["-p", "no:randomly", "-p", "no:cacheprovider"]
        answer = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-s", *plugins, str(tmp_path)],
            env={**os.environ, "CLEANROOM_BACKEND": "process", **environment},
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        outcome = Outcome(answer.returncode, answer.stdout, [])
        gone_within(GRACE, str(outcome.facts["run"]))
        return outcome

    return run


def test_a_long_temporary_directory(here: Callable[..., Outcome], tmp_path: Path) -> None:
    """A TMPDIR of 150 characters, too long for sockets in it, is no hindrance."""
    folder = tmp_path / ("x" * (150 - len(str(tmp_path)) - 1))
    folder.mkdir()
    assert len(str(folder)) == 150
    here(TMPDIR=str(folder)).assert_passed()
    assert list(folder.iterdir()) == []


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can enter."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="c-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's home")
@pytest.mark.parametrize("owner", [0, 1234])
def test_root_with_packages_in_a_private_home(
    here: Callable[..., Outcome], open_folder: Path, owner: int
) -> None:
    """Root reaches the server in its own private home; from another user's it runs a copy."""
    home = open_folder / "home"
    home.mkdir(mode=0o700)
    shutil.copytree(SERVER, home / SERVER.name, symlinks=True)
    for path in [home, *home.rglob("*")]:
        os.chown(path, owner, owner, follow_symlinks=False)
    outcome = here(PYTHONPATH=str(home), CLEANROOM_CACHE_DIR=str(open_folder / "cache"))
    outcome.assert_passed()
    program = outcome.facts["program"]
    assert program.startswith(str(home)) is (owner == 0), program
    assert home.stat().st_mode & 0o777 == 0o700
    assert home.stat().st_uid == owner
    until(lambda: not list(Path("/tmp").glob(f"*{outcome.facts['run']}*")))
