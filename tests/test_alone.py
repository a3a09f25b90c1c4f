"""Tests that write the same things, many at once, and each of them is alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.leftovers import gone_within
from tests.test_combined import API, CONFTEST

ROUNDS = int(os.environ.get("CLEANROOM_TEST_ROUNDS", "1"))
"""How often in a row; more of them find what is rare."""

DECLARED = f"""
[tool.pytest]
[tool.cleanroom.services.db]
plugin = "postgres"
[tool.cleanroom.services.cache]
plugin = "redis"
[tool.cleanroom.services.api]
plugin = "http"
command = ["{sys.executable}", "api.py", "{{port}}"]
env = {{ DATABASE_URL = "{{db.url}}", REDIS_URL = "{{cache.url}}" }}
"""

SUITE = """
import time
from pathlib import Path

import pytest


def test_note_the_run(postgres_service):
    with Path(__file__).with_name("runs").open("a") as runs:
        runs.write(postgres_service.id.partition("-")[0] + "\\n")


@pytest.mark.parametrize("n", range(12))
def test_database(postgres_db, n):
    with postgres_db.connect() as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (0,)
        row = connection.execute("INSERT INTO items (name) VALUES ('same') RETURNING id").fetchone()
        assert row == (1,)
        connection.commit()
        time.sleep(n % 3 / 100)  # so that others write meanwhile
        assert connection.execute("SELECT name FROM items").fetchall() == [("same",)]


@pytest.mark.parametrize("n", range(12))
def test_cache(redis_db, n):
    client = redis_db.client()
    assert client.dbsize() == 0
    assert client.incr("same") == 1
    time.sleep(n % 3 / 100)
    assert client.incr("same") == 2
    assert client.dbsize() == 1


@pytest.mark.parametrize("n", range(12))
def test_all(http_service, postgres_db, redis_db, n):
    said = http_service.session
    assert said.get("/").json() == {"rows": [], "keys": []}
    said.post("/same")
    time.sleep(n % 3 / 100)
    assert said.get("/").json() == {"rows": ["same"], "keys": ["same"]}
    with postgres_db.connect() as connection:
        assert connection.execute("SELECT id, name FROM items").fetchall() == [(1, "same")]
    assert redis_db.client().keys() == [b"same"]
"""


@pytest.fixture
def checkouts(tmp_path: Path) -> list[Path]:
    """Two checkouts of one project."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        (folder / "pyproject.toml").write_text(DECLARED)
        (folder / "conftest.py").write_text(CONFTEST)
        (folder / "items.sql").write_text(
            "CREATE TABLE items (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text)"
        )
        (folder / "api.py").write_text(API)
        (folder / "test_alone.py").write_text(SUITE)
    return folders


@pytest.mark.parametrize("number", range(ROUNDS))
def test_every_test_is_alone(checkouts: list[Path], number: int) -> None:
    """With four workers in each of two checkouts at once, no test meets what another wrote."""
    options = ["-n", "4", "-p", "no:cacheprovider", "-W", "error"]
    sessions = [
        subprocess.Popen(
            [sys.executable, "-m", "pytest", *options],
            cwd=folder,
            env={**os.environ, "CLEANROOM_BACKEND": "process"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for folder in checkouts
    ]
    for session in sessions:
        said, _ = session.communicate(timeout=300)
        assert session.returncode == 0, said
        assert "37 passed" in said
        for shared in ("db", "cache"):
            assert said.count(f"\n{shared}: process, version ") == 1
        assert re.search(r"\napi: process, on each of gw\d(, gw\d)+, ready in", said), said
    runs = {run for folder in checkouts for run in (folder / "runs").read_text().split()}
    assert len(runs) == 2
    for run in runs:
        gone_within(10, run)
