"""`cleanroom cache`: what lies in it, and how it is emptied."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cleanroom_runtime import Workspace, cached_directory
from cleanroom_runtime._run import RunAddress, join_run, joined_run, leave_run

if TYPE_CHECKING:
    from conftest import Cli


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, with two directories of 2000 bytes and one of another kind."""
    root = tmp_path / "cache"
    monkeypatch.setenv("CLEANROOM_CACHE_DIR", str(root))
    before = joined_run()
    run = join_run(RunAddress.new())

    def fill(directory: Path) -> None:
        (directory / "data").write_bytes(bytes(2000))

    try:
        for number, (kind, version) in enumerate(
            [("postgres", "18.1"), ("postgres", "18.1"), ("box", "2")]
        ):
            facts = {"version": version, "number": str(number)}
            workspace = Workspace(tmp_path / f"work{number}", tmp_path, 1)
            cached_directory(kind, facts, fill, workspace)
    finally:
        run.shut_down()
        leave_run(before)
    return root


def test_show(cli: Cli, root: Path) -> None:
    """What there is is shown by kind and version, with its size."""
    first, _, *rows = cli("cache", "show").out.splitlines()
    assert first.startswith(f"{root}: 3 prepared directories, ")
    assert rows[0].split()[:3] == ["box", "2", "1"]
    assert rows[1].split()[:3] == ["postgres", "18.1", "2"]
    assert float(rows[1].split()[3]) >= 4000 / 1024
    assert rows[1].endswith(" today")


@pytest.mark.parametrize(("days", "said"), [(0, "today"), (1, "yesterday"), (12, "12 days ago")])
def test_last_use(cli: Cli, root: Path, days: int, said: str) -> None:
    """Of each kind and version is shown when one was used last; `--json` has the time."""
    used = time.time() - days * 24 * 60 * 60
    for file in root.glob("box/*/*"):
        os.utime(file, (used, used))
    assert cli("cache", "show").out.splitlines()[2].endswith(f"  {said}")
    (box,) = (
        each for each in json.loads(cli("cache", "show", "--json").out)["found"]
        if each["kind"] == "box"
    )  # fmt: skip
    assert datetime.fromisoformat(box["last_used"]).timestamp() == pytest.approx(used, abs=1)


def test_json(cli: Cli, root: Path) -> None:
    """`--json` has each directory with what it depends on."""
    shown = json.loads(cli("cache", "show", "--json").out)
    assert shown["root"] == str(root)
    assert [each["facts"]["number"] for each in shown["found"] if each["kind"] == "box"] == ["2"]
    assert all(each["bytes"] >= 2000 for each in shown["found"])


def test_clear_one_kind(cli: Cli, root: Path) -> None:
    """Only what is of the kind named is removed; of an unknown one the nearest is named."""
    said = cli("cache", "clear", "postgress")
    assert said.code == 1
    assert "hint: did you mean 'postgres'?" in said.err
    assert cli("cache", "clear", "postgres").out.startswith("Removed 2 prepared directories, ")
    assert [each["kind"] for each in json.loads(cli("cache", "show", "--json").out)["found"]] == [
        "box"
    ]


def test_clear_everything(cli: Cli, root: Path) -> None:
    """All is removed, notes of earlier runs as well; doing so again is fine."""
    (root / "ahead").mkdir()
    (root / "ahead" / "note.json").touch()
    assert cli("cache", "clear", "postgres").code == 0
    assert (root / "ahead" / "note.json").exists()
    assert cli("cache", "clear").code == 0
    assert list(root.glob("*/*")) == []
    assert cli("cache", "clear").out == "Removed 0 prepared directories, 0 B.\n"


def test_clear_what_cannot_be_used(cli: Cli, root: Path) -> None:
    """What an earlier version made, or a killed run left, is removed when all is."""
    old = root / "postgres" / ("0" * 24)
    (old / "content").mkdir(parents=True)
    (old / "lock").touch()
    (old / "content" / "data").write_bytes(bytes(1024**2))
    os.utime(old / "content", (0, 0))
    assert cli("cache", "clear", "postgres").code == 0
    assert old.exists()
    assert cli("cache", "clear").out == "Removed 2 prepared directories, 1.0 MiB.\n"
    assert list(root.glob("*/*")) == []


def test_no_home(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a home, and without a word where else to put it, there is no cache."""
    monkeypatch.delenv("CLEANROOM_CACHE_DIR", raising=False)

    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", no_home)
    assert cli("cache", "show").out.startswith("There is no cache: ")
