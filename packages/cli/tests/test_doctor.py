"""`cleanroom doctor`: each check, and what it says to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cleanroom_runtime import _folders, _runs

if TYPE_CHECKING:
    from conftest import Cli, Install


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, project: Path) -> None:
    """No other runs are seen."""
    monkeypatch.setattr(_runs, "run_roots", lambda: iter([tmp_path / "runs"]))


@pytest.fixture
def checks(cli: Cli) -> Callable[[], dict[str, dict[str, str]]]:
    """Runs the checks and returns them by what they look at."""
    return lambda: {each["what"]: each for each in json.loads(cli("doctor", "--json").out)}


def test_a_machine_that_is_well(cli: Cli) -> None:
    """With servers at hand nothing fails, engine or not; each check is a line."""
    said = cli("doctor")
    assert said.code == 0
    states = {line.split()[0] for line in said.out.splitlines()[1:] if line[0] != " "}
    assert states <= {"ok", "warn"}
    assert "postgres server" in said.out
    assert "redis server" in said.out


@pytest.mark.usefixtures("no_engine")
def test_no_engine(cli: Cli) -> None:
    """An engine that does not answer is a warning, with the place that was asked and a remedy."""
    (line,) = [line for line in cli("doctor").out.splitlines() if "container engine" in line]
    assert line.startswith("warn")
    assert "DOCKER_HOST unix:///nobody/listens/here.sock: no such socket" in line


def test_no_ports(checks: Callable[[], dict[str, dict[str, str]]]) -> None:
    """Where nothing can listen on 127.0.0.1, no service could: that fails, with a remedy."""
    assert checks()["ports"]["state"] == "ok"
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable]
    tried = subprocess.run([*command, "-c", ""], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip("networks without a loopback interface cannot be made here")
    said = subprocess.run(
        [*command, "-m", "cleanroom_cli", "doctor", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    (ports,) = [each for each in json.loads(said.stdout) if each["what"] == "ports"]
    assert ports["state"] == "fail"
    assert "127.0.0.1" in ports["found"]
    assert "loopback interface" in ports["remedy"]
    assert said.returncode == 1


@pytest.mark.usefixtures("no_engine")
def test_no_server(
    checks: Callable[[], dict[str, dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin with neither server nor engine fails, with the way to get a server."""
    from cleanroom_plugin_redis import RedisPlugin

    monkeypatch.setattr(RedisPlugin, "local_servers", lambda self: [])
    check = checks()["redis server"]
    assert check["state"] == "fail"
    assert "cleanroom-plugin-redis[embedded]" in check["remedy"]


def test_declared_services(cli: Cli, declare: Callable[[str], None]) -> None:
    """Of each declared service it is said how it would run; one that cannot is a failure."""
    declare(
        """
        [tool.cleanroom.services.cache]
        plugin = "redis"

        [tool.cleanroom.services.db]
        plugin = "postgres"
        image = "postgres:9"

        [tool.cleanroom.services.api]
        plugin = "http"
        command = ["serve", "{cache.url}"]
        """
    )
    said = cli("doctor", "--json")
    found = {each["what"]: each for each in json.loads(said.out)}
    assert said.code == 1
    assert found["service cache"]["found"].startswith("redis: process (CLEANROOM_BACKEND=process")
    assert found["service db"]["state"] == "fail"
    assert "it promises version 9" in found["service db"]["found"]
    assert "install PostgreSQL 9" in found["service db"]["remedy"]
    assert found["service api"]["found"] == "http, after cache"


def test_a_declaration_that_is_wrong(cli: Cli, declare: Callable[[str], None]) -> None:
    """A syntax error is a failed check, with file, line and column."""
    declare("[tool.cleanroom\n")
    said = cli("doctor")
    assert said.code == 1
    assert "line 1, column 16" in said.out


def test_broken_plugins(checks: Callable[[], dict[str, dict[str, str]]], install: Install) -> None:
    """A plugin or a module of hooks that cannot be loaded is a failure, with its distribution."""
    install("ape-plugin", plugins={"ape": "ape_plugin:Ape"}, source="import honey_pot")
    install("bee-hooks", hooks={"bee": "bee_hooks"}, source="import honey_pot")
    found = checks()
    assert found["plugin ape"]["state"] == "fail"
    assert "ape-plugin 1.5" in found["plugin ape"]["found"]
    assert found["hooks bee"]["state"] == "fail"


def test_leftovers(checks: Callable[[], dict[str, dict[str, str]]], tmp_path: Path) -> None:
    """A dead run is a warning, and the command is named that cleans up."""
    assert checks()["leftovers"]["state"] == "ok"
    (tmp_path / "runs" / "r01234567").mkdir(parents=True)
    check = checks()["leftovers"]
    assert check["state"] == "warn"
    assert check["found"] == "of 1 dead run: r01234567"
    assert check["remedy"] == "cleanroom clean"


def test_little_memory(
    checks: Callable[[], dict[str, dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without room in memory, data lies on disk: a warning."""
    monkeypatch.setattr(_folders, "_MEMORY_FOLDER", Path("/nowhere"))
    assert checks()["memory for data"]["state"] == "warn"


def test_a_long_temporary_folder(
    checks: Callable[[], dict[str, dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A folder with a path too long for sockets is passed over, which is said."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    check = checks()["folder for runs"]
    assert check["state"] == "warn"
    assert check["found"].startswith(f"/tmp/cleanroom-{os.getuid()}, as {folder} ")


def test_a_cache_that_cannot_be_written(
    checks: Callable[[], dict[str, dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache in a folder that cannot be written to is a warning."""
    monkeypatch.setenv("CLEANROOM_CACHE_DIR", "/dev/null/cleanroom")
    check = checks()["cache"]
    assert check["state"] == "warn"
    assert "CLEANROOM_CACHE_DIR" in check["remedy"]


def test_on_a_terminal(terminal: Callable[..., tuple[int, str]]) -> None:
    """On a terminal of 80 columns no line is longer."""
    _, shown = terminal(["doctor"])
    assert max(map(len, shown.splitlines())) <= 80
