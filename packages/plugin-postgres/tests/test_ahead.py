"""The server that the last run had is launched while pytest collects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.grounds import Ground
from tests.launched_ahead import CONFTEST, was_taken

Run = Callable[..., pytest.RunResult]

TEMPLATE = """
from cleanroom_plugin_postgres import template

postgres_template = template("migrations/*.sql")
"""

TESTS = """
from pathlib import Path

def test_server(postgres_service, postgres_db):
    taken = Path("taken").read_text()
    assert taken in ("", postgres_service.require("pid"))
    folder = Path(postgres_service.require("log")).parent
    with postgres_db.connect() as connection:
        ((directory,),) = connection.execute("SHOW unix_socket_directories").fetchall()
        assert Path(directory) == folder
        connection.execute("CREATE TABLE made_here ()")
"""

ROWS = """
def test_rows(postgres_db):
    with postgres_db.connect() as connection:
        rows = connection.execute("SELECT name FROM t").fetchall()
        assert [name for name, in rows] == NAMES
"""


@pytest.fixture
def folder(
    inner: Path, process_ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder of an inner run whose server is a process, with a cache of its own."""
    monkeypatch.setenv("CLEANROOM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CLEANROOM_BACKEND", "process")
    return inner


def test_server_of_the_last_run_is_launched_ahead(
    folder: Path, pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_it=TESTS)
    for taken in (False, True, True):
        run().assert_outcomes(passed=1)
        assert was_taken(folder) is taken


def test_declared_server_with_a_password(
    folder: Path, pytester: pytest.Pytester, run: Run, tmp_path: Path
) -> None:
    (folder / "cleanroom.toml").write_text(
        '[services.db]\nplugin = "postgres"\nusername = "me"\npassword = "hush-hush"\n'
        "settings = { work_mem = '5MB' }\n"
    )
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_it=TESTS)
    for taken in (False, True):
        run().assert_outcomes(passed=1)
        assert was_taken(folder) is taken
    (note,) = (tmp_path / "cache" / "ahead").iterdir()
    assert "work_mem=5MB" in note.read_text()
    assert "hush-hush" not in note.read_text()


def test_migrated_server_is_launched_ahead_until_a_migration_changes(
    folder: Path, pytester: pytest.Pytester, run: Run
) -> None:
    migrations = folder / "migrations"
    migrations.mkdir()
    (migrations / "1.sql").write_text("CREATE TABLE t (name text); INSERT INTO t VALUES ('one');")
    pytester.makeconftest(CONFTEST + TEMPLATE)
    pytester.makepyfile(test_it=TESTS, test_rows=f"NAMES = ['one']\n{ROWS}")
    for taken in (False, True):
        run().assert_outcomes(passed=2)
        assert was_taken(folder) is taken
    (migrations / "2.sql").write_text("INSERT INTO t VALUES ('two');")
    pytester.makepyfile(test_rows=f"NAMES = ['one', 'two']\n{ROWS}")
    for taken in (False, True):
        run().assert_outcomes(passed=2)
        assert was_taken(folder) is taken


def test_damaged_data_directory_is_not_served(
    folder: Path, pytester: pytest.Pytester, run: Run, tmp_path: Path
) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_it=TESTS)
    run().assert_outcomes(passed=1)
    (pack,) = (tmp_path / "cache").glob("postgres/*/content.pack")
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 0xFF
    pack.write_bytes(content)
    for taken in (False, True):
        run().assert_outcomes(passed=1)
        assert was_taken(folder) is taken


def test_workers_share_what_was_launched_ahead(
    folder: Path, pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_it=TESTS, test_other=TESTS)
    for taken in (False, True):
        run("-n", "2").assert_outcomes(passed=2)
        assert was_taken(folder) is taken
