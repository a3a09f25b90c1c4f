"""What a service can be declared with, in a file."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from cleanroom import CleanroomEnvironment, ConfigurationError, ServiceError
from cleanroom_plugin_postgres import PostgresPlugin

DECLARED = """
[tool.cleanroom.services.db]
plugin = "postgres"
backend = "process"
database_name = "shop"
username = "clerk"
password = "till"
env = { PGTZ = "Asia/Tokyo" }
settings = { work_mem = "7MB", enable_seqscan = false }
init_scripts = ["sql/schema.sql"]
migrate = "sql/[0-9]*.sql"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with SQL files, which is not the current folder."""
    sql = tmp_path / "sql"
    sql.mkdir()
    (sql / "schema.sql").write_text("CREATE TABLE item (name text)")
    (sql / "1.sql").write_text("INSERT INTO item VALUES ('one')")
    (sql / "2.sql").write_text("UPDATE item SET name = name || ' and two'")
    return tmp_path


def test_everything_can_be_declared(folder: Path) -> None:
    """Credentials, environment, settings, scripts and migrations, relative to the file's folder."""
    (folder / "pyproject.toml").write_text(DECLARED)
    with CleanroomEnvironment.from_config(folder) as env:
        handle = env["db"]
        assert handle.url.startswith("postgresql://clerk:till@127.0.0.1:")
        with psycopg.connect(handle.url) as connection:
            said = "SELECT name, current_setting('work_mem'), current_setting('enable_seqscan') "
            row = connection.execute(f"{said} FROM item").fetchone()
        assert row == ("one and two", "7MB", "off")
        plugin = env.plugin("db")
        assert isinstance(plugin, PostgresPlugin)
        with plugin.isolate(handle) as isolated, psycopg.connect(isolated.url) as connection:
            assert connection.execute("SELECT name FROM item").fetchall() == [("one and two",)]


def test_a_migration_may_be_a_function(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`module:function` is imported when the database is there; what it raises says where."""
    (folder / "shop_migrations.py").write_text(
        "def migrate(database):\n"
        "    with database.connect() as connection:\n"
        "        connection.execute('CREATE TABLE item (name text)')\n"
        "def fail(database):\n"
        "    raise LookupError('no such thing')\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    declared = '[services.db]\nplugin = "postgres"\nbackend = "process"\nmigrate = "{}"\n'
    file = folder / "cleanroom.toml"
    file.write_text(declared.format("shop_migrations:migrate"))
    with (
        CleanroomEnvironment.from_config(file) as env,
        psycopg.connect(env["db"].url) as connection,
    ):
        assert connection.execute("SELECT count(*) FROM item").fetchone() == (0,)
    file.write_text(declared.format("shop_migrations:fail"))
    with (
        CleanroomEnvironment.from_config(file) as env,
        pytest.raises(
            ServiceError, match=r"failed at .*shop_migrations.py:5: LookupError"
        ) as caught,
    ):
        env.start("db")
    assert isinstance(caught.value.__cause__, LookupError)
    file.write_text(declared.format("shop_migrations:missing"))
    with (
        CleanroomEnvironment.from_config(file) as env,
        pytest.raises(ConfigurationError, match="migrate is 'shop_migrations:missing'"),
    ):
        env.start("db")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("settings = 3", "settings is no table"),
        ("env = { POSTGRES_DB = 'x' }", "key is 'POSTGRES_DB'"),
        ("username = 4", "username is 4"),
        ("password = ['abc', 'def']", "password is empty, has several lines, or is no text"),
        ("init_scripts = { a = 'b' }", "init_scripts is {'a': 'b'}"),
        ("init_scripts = ['nowhere.sql']", "nowhere.sql' does not exist"),
        ("migrate = [3]", r"migrate is \[3\]"),
        ("migrate = 'nowhere/*.sql'", "migrate: 'nowhere/.*.sql' matches no .*\n.*hint: globs are"),
        (
            "migrate = 'sql/*.sql'\nmigrate_inputs = 'nowhere'",
            "migrate_inputs: 'nowhere' matches no file in",
        ),
        ("migrations = 'sql/*.sql'", "migrations: unknown key"),
    ],
)
def test_what_is_declared_wrongly(folder: Path, line: str, said: str) -> None:
    """It is an error that names file, table and option, before anything starts."""
    file = folder / "cleanroom.toml"
    file.write_text(f'[services.db]\nplugin = "postgres"\nbackend = "process"\n{line}\n')
    with pytest.raises(ConfigurationError, match=said) as caught:
        CleanroomEnvironment.from_config(file).start("db")
    assert f"{file} [services.db]" in str(caught.value)
