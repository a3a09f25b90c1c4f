"""The examples run as their pages say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(folder: str, *arguments: str) -> str:
    """Run Python in the folder of an example, on processes; return what it wrote."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=EXAMPLES / folder,
        env={**os.environ, "CLEANROOM_BACKEND": "process", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_plain_script() -> None:
    """A script has the declared services without pytest."""
    lines = run("scripts", "plain_script.py").splitlines()
    assert lines[0].startswith("PostgreSQL ")
    assert lines[1] == "Redis says hello"
    assert sorted(lines[2:]) == ["cache is healthy", "db is healthy"]


def test_unittest() -> None:
    """Tests of unittest have clean slices of the declared services."""
    assert "Ran 2 tests" in run("scripts", "-m", "unittest", "-v")


def test_async_script() -> None:
    """An event loop goes on while the services start, and its clients reach them."""
    first, *others = run("scripts", "async_script.py").splitlines()
    assert int(first.split()[-2]) >= 5
    assert others == ["PostgreSQL says 42", "Redis says hello"]
