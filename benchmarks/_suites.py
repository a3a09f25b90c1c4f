"""Suites to measure, written into a folder: the same tests for every contender."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from benchmarks._contenders import Contender

ROWS = 10
"""Rows in each table of the template."""

_BODIES = {
    "nothing": """
        def test_nothing(n):
            assert psycopg
        """,
    "connects": """
        def test_connects(connection, n):
            assert connection.execute("SELECT 1").fetchone() == (1,)
        """,
    "reads": """
        def test_reads(connection, n):
            assert connection.execute("SELECT count(*) FROM t_000").fetchone() == (ROWS,)
        """,
    "writes": """
        def test_writes(connection, n):
            for name in ("one", "two", "three"):
                connection.execute("INSERT INTO t_000 (name) VALUES (%s)", (name,))
            connection.commit()
            assert connection.execute("SELECT count(*) FROM t_000").fetchone() == (ROWS + 3,)
        """,
    "rolls back": """
        def test_rolls_back(connection, n):
            for name in ("one", "two", "three"):
                connection.execute("INSERT INTO t_000 (name) VALUES (%s)", (name,))
            assert connection.execute("SELECT count(*) FROM t_000").fetchone() == (ROWS + 3,)
            connection.rollback()
        """,
    "migrated when": """
        def test_migrated_when(connection, n):
            when, = connection.execute("SELECT extract(epoch FROM at) FROM migrated").fetchone()
            Path(__file__).with_name("migrated.json").write_text(str(int(when >= BEGAN)))
        """,
    "runs DDL": """
        def test_runs_ddl(connection, n):
            connection.execute("CREATE TABLE made_here (id bigint PRIMARY KEY, name text)")
            connection.execute("INSERT INTO made_here VALUES (1, 'one')")
            connection.commit()
            assert connection.execute("SELECT count(*) FROM made_here").fetchone() == (1,)
        """,
}

_SETTINGS = '[tool.pytest.ini_options]\naddopts = "-p no:cacheprovider"\n'

_REDIS_HEAD = """\
import pytest
import redis


@pytest.mark.parametrize("n", range({tests}))
"""

_REDIS_BODIES = {
    "nothing": """\
        def test_nothing(n):
            assert redis
        """,
    "increments": """\
        def test_increments(client, n):
            assert client.incr("key") == 1
        """,
    "increments another": """\
        def test_increments(client, n):
            assert client.incr(f"key {n}") == 1
        """,
}

_IDLE_CONFTEST = """\
import json
import os
from pathlib import Path

import pytest


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish():
    threads = [Path(entry.path) for entry in os.scandir("/proc/self/task")]
    processes = [pid for thread in threads for pid in (thread / "children").read_text().split()]
    left = {"threads": len(threads) - 1, "processes": len(processes)}
    Path(__file__).with_name("left.json").write_text(json.dumps(left))
"""

_MIGRATED = """
CREATE TABLE migrated (at timestamptz NOT NULL);
INSERT INTO migrated VALUES (clock_timestamp());
"""


@dataclass(frozen=True)
class Work:
    """What each test of a suite does, and on what.

    The tests of all kinds but `nothing` and `connects` fail if they meet what another one wrote.
    """

    kind: str
    tables: int

    def __str__(self) -> str:
        tables = "empty database" if not self.tables else f"{self.tables}-table template"
        return f"{self.kind}, {tables}"


def write_suite(folder: Path, contender: Contender, work: Work, tests: int) -> Path:
    """Write a suite of `tests` tests for a contender and return its folder."""
    folder.mkdir(parents=True)
    kind = contender.kind or work.kind
    _write(folder / "pyproject.toml", _SETTINGS + contender.settings)
    _write(folder / "conftest.py", contender.conftest(work.tables))
    _write(folder / "test_suite.py", _test_module(kind, tests))
    (folder / "migrations").mkdir()
    for number in range(work.tables):
        _write(folder / "migrations" / f"{number:04}.sql", _migration(number))
    if kind == "migrated when":
        with (folder / "migrations" / f"{work.tables - 1:04}.sql").open("a") as last:
            last.write(_MIGRATED)
    return folder


def write_redis_suite(folder: Path, contender: Contender, tests: int) -> Path:
    """Write a suite of `tests` tests of Redis for a contender and return its folder."""
    folder.mkdir(parents=True)
    _write(folder / "pyproject.toml", _SETTINGS + contender.settings)
    _write(folder / "conftest.py", contender.conftest(0))
    body = _REDIS_BODIES[contender.kind or "increments"]
    _write(folder / "test_suite.py", _REDIS_HEAD.format(tests=tests) + textwrap.dedent(body))
    return folder


def write_idle_suite(folder: Path) -> Path:
    """Write a suite with one test that uses nothing, and notes at the end what is there anyway."""
    folder.mkdir(parents=True)
    _write(folder / "pyproject.toml", _SETTINGS)
    if sys.platform == "linux":
        _write(folder / "conftest.py", _IDLE_CONFTEST)
    _write(folder / "test_suite.py", "def test_nothing():\n    pass\n")
    return folder


def _test_module(kind: str, tests: int) -> str:
    imports = "import time\nfrom pathlib import Path\n\nimport psycopg\nimport pytest\n\n"
    head = f"{imports}ROWS = {ROWS}\nBEGAN = time.time()\n\n\n"
    parametrize = f'@pytest.mark.parametrize("n", range({tests}))\n'
    return head + parametrize + textwrap.dedent(_BODIES[kind]).lstrip()


def _migration(number: int) -> str:
    """Return one table of ordinary make: identity, constraints, an index, a reference, rows."""
    name = f"t_{number:03}"
    parent = f"bigint REFERENCES t_{number - 1:03} (id)" if number else "bigint"
    return textwrap.dedent(
        f"""
        CREATE TABLE {name} (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            parent_id {parent},
            name text NOT NULL UNIQUE,
            amount integer NOT NULL DEFAULT 0 CHECK (amount >= 0),
            created_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX {name}_parent_id_idx ON {name} (parent_id);
        INSERT INTO {name} (parent_id, name, amount)
        SELECT {"n" if number else "NULL"}, 'row ' || n, n FROM generate_series(1, {ROWS}) AS n;
        """
    ).lstrip()


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
