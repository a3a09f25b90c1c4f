"""`cleanroom plugins`: what is installed, on which backends it runs here, and what is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Cli, Install


def row(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [name]]
    return line.split(maxsplit=3)


@pytest.mark.usefixtures("no_engine")
def test_backends_without_an_engine(cli: Cli) -> None:
    """Without an engine a plugin with a server here runs as a process, and an image nowhere."""
    said = cli("plugins")
    assert said.code == 0
    assert row(said.out, "postgres")[1:] == [
        "cleanroom-plugin-postgres",
        version("cleanroom-plugin-postgres"),
        "process, external",
    ]
    assert row(said.out, "http")[3] == "process, external"
    assert row(said.out, "container")[3] == "none"


def test_broken_plugins_are_named_with_the_reason(cli: Cli, install: Install) -> None:
    """What cannot be loaded is listed as broken, with reason, distribution and version."""
    install("ape-plugin", plugins={"ape": "ape_plugin:Ape"}, source="raise SystemExit('no apes')")
    install("bee-hooks", hooks={"bee": "bee_hooks"}, source="import honey_pot")
    said = cli("plugins")
    assert said.code == 0
    assert row(said.out, "ape") == ["ape", "ape-plugin", "1.5", "broken"]
    assert "SystemExit: no apes (ape_plugin:Ape, from ape-plugin 1.5)" in said.out
    assert "No module named 'honey_pot' (bee_hooks, from bee-hooks 1.5)" in said.out


def test_fixtures_that_cannot_be_loaded(cli: Cli, install: Install) -> None:
    """A module of fixtures that fails to import is named with the reason."""
    hooks = """
        from cleanroom.hooks import hookimpl

        @hookimpl
        def cleanroom_fixture_modules():
            return "no_such_fixtures"
    """
    install("bee-hooks", hooks={"bee": "bee_hooks"}, source=hooks)
    assert (
        "broken: the fixtures in no_such_fixtures cannot be used: "
        "ModuleNotFoundError: No module named 'no_such_fixtures'\n"
    ) in cli("plugins").out


def test_a_name_that_two_claim(cli: Cli, install: Install) -> None:
    """Of two distributions that claim a name, both are broken, and both are named."""
    install("ape-plugin", plugins={"box": "ape_plugin:Ape"})
    install("bee-plugin", plugins={"box": "bee_plugin:Bee"})
    said = cli("plugins")
    assert said.out.count("claimed by ape-plugin 1.5 and by bee-plugin 1.5") == 2


@pytest.mark.usefixtures("install")  # What is found with one switched off is forgotten after it.
def test_what_is_switched_off(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin that is switched off is listed, and the variable that does so is named."""
    monkeypatch.setenv("CLEANROOM_DISABLE_PLUGINS", "redis")
    said = cli("plugins")
    assert row(said.out, "redis")[3] == "off"
    assert "CLEANROOM_DISABLE_PLUGINS switches off redis of cleanroom-plugin-redis" in said.out


@pytest.mark.usefixtures("no_engine")
def test_json(cli: Cli, install: Install) -> None:
    """`--json` has the same facts, for scripts."""
    install("ape-plugin", plugins={"ape": "ape_plugin:Ape"}, source="raise KeyError('ape')")
    known = {each["name"]: each for each in json.loads(cli("plugins", "--json").out)["plugins"]}
    assert known["redis"]["state"] == "ok"
    assert known["redis"]["backends"] == ["process", "external"]
    assert known["redis"]["problem"] is None
    assert known["ape"]["state"] == "broken"
    assert "KeyError" in known["ape"]["problem"]


def test_on_a_terminal(terminal: Callable[..., tuple[int, str]]) -> None:
    """On a terminal of 80 columns no line is longer, and no word is lost."""
    code, shown = terminal(["plugins"])
    assert code == 0
    assert max(map(len, shown.splitlines())) <= 80
    assert row(shown, "postgres")[:2] == ["postgres", "cleanroom-plugin-postgres"]
