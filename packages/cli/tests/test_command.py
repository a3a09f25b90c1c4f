"""What holds for every subcommand: help, errors, completion, quick start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Cli, Install, Spawn

BROKEN = """
    class Box:
        def __init__(self, name="box"): self.name = name
        def start(self): raise RuntimeError("at http://me:sesame@here: no")
        def stop(self, handle): pass
        def health_check(self, handle): pass
"""


def test_help_names_every_subcommand(cli: Cli) -> None:
    """`cleanroom --help` lists the subcommands with whole sentences, and the exit codes."""
    said = cli("--help")
    assert said.code == 0
    assert "..." not in said.out.partition("Commands:")[2]
    for name in ("up", "plugins", "doctor", "clean", "cache", "new"):
        assert f"\n  {name} " in said.out
        assert cli(name, "--help").code == 0
    assert "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted." in said.out


def test_help_imports_neither_rich_nor_the_runtime() -> None:
    """What `cleanroom --help` does not need, it does not import."""
    code = (
        "import sys; from cleanroom_cli.__main__ import main; main(['--help']);"
        "print(sorted({'rich', 'cleanroom', 'cleanroom_runtime', 'cookiecutter'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(cli: Cli) -> None:
    """`cleanroom --version` states the version of the distribution."""
    from cleanroom_cli import __version__

    assert cli("--version").out == f"cleanroom, version {__version__}\n"


def test_unknown_subcommand(cli: Cli) -> None:
    """Of an unknown subcommand the nearest one is named; the exit code is that of wrong usage."""
    said = cli("plugin")
    assert said.code == 2
    assert "no such command 'plugin': did you mean 'plugins'?" in said.err


def test_unknown_option(cli: Cli) -> None:
    """An unknown option is wrong usage."""
    assert cli("plugins", "--jsn").code == 2


@pytest.mark.parametrize("arguments", [["--debug", "up"], ["up", "--debug"]])
def test_debug_shows_a_traceback(cli: Cli, project: Path, arguments: list[str]) -> None:
    """An error of ours is a message and a hint; with `--debug`, wherever it stands, a traceback."""
    plain = cli("up")
    assert plain.code == 1
    assert plain.err.startswith("Error: no service is declared in this folder")
    assert "  hint: " in plain.err
    assert "Traceback" not in plain.err
    assert "Traceback" in cli(*arguments).err


def test_an_error_nobody_raised_on_purpose(cli: Cli, install: Install, project: Path) -> None:
    """What a plugin lets escape is shown with its traceback, without the passwords in it."""
    install("box-plugin", plugins={"box": "box_plugin:Box"}, source=BROKEN)
    said = cli("up", "box")
    assert said.code == 1
    assert "Traceback" in said.err
    assert "RuntimeError: at http://me:***@here: no" in said.err
    assert "sesame" not in said.err


def test_invalid_toml(cli: Cli, declare: Callable[[str], None], project: Path) -> None:
    """A syntax error in `pyproject.toml` is told with file, line and column."""
    declare('[tool.cleanroom.services.db]\nplugin = "postgres\n')
    said = cli("up")
    assert said.code == 1
    assert f"{project}/pyproject.toml: " in said.err
    assert "line 2, column 19" in said.err


def test_a_closed_pipe(spawn: Spawn, project: Path) -> None:
    """Where the reader goes away, the command ends with code 1 and says nothing of it."""
    process = spawn("plugins")
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(30) == 1


def test_completion_of_services(declare: Callable[[str], None], project: Path) -> None:
    """The shell completes declared services and installed plugins."""
    declare('[tool.cleanroom.services.reporting]\nplugin = "postgres"\n')
    variables = {"_CLEANROOM_COMPLETE": "bash_complete", "COMP_WORDS": "cleanroom up re"}
    done = subprocess.run(
        [sys.executable, "-m", "cleanroom_cli"],
        env={**os.environ, **variables, "COMP_CWORD": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["plain,redis", "plain,reporting"]
