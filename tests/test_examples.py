"""The examples run as their pages say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(folder: str, *arguments: str, backend: str = "process", **variables: str) -> str:
    """Run Python in the folder of an example, on one backend; return what it wrote."""
    own = {"CLEANROOM_BACKEND": backend, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=EXAMPLES / folder,
        env={**os.environ, **own, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
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


PYTEST = ("-m", "pytest", "-p", "no:cacheprovider")


def test_shop_on_processes() -> None:
    """The shop's tests pass on processes, four workers having an API each."""
    said = run("shop", *PYTEST, "-n", "4", PYTHONPATH=str(EXAMPLES / "shop"))
    assert "24 passed" in said
    assert "api: process, on each of gw0, gw1, gw2, gw3, ready in" in said


@pytest.mark.slow
def test_shop_in_containers(postgres_image: str, redis_image: str, shop_image: str) -> None:
    """The very same files run in containers alone."""
    said = run(
        *("shop", *PYTEST, "-n", "2"),
        backend="container",
        SHOP_POSTGRES_IMAGE=postgres_image,
        SHOP_REDIS_IMAGE=redis_image,
        SHOP_IMAGE=shop_image,
    )
    assert "24 passed" in said
    assert all(f"{name}: container, " in said for name in ("db", "cache", "api"))
    assert "replaced" not in said
