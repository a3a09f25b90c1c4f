"""In a pytest session, the first test's clone lies in what a process starts with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cleanroom import ServiceHandle
from cleanroom_plugin_postgres import Database, PostgresPlugin, _databases, _prebuilt
from tests.grounds import Ground

Start = Callable[[PostgresPlugin], ServiceHandle]

ORDERS = "CREATE TABLE orders (id int); INSERT INTO orders VALUES (1); "
SETTING = "ALTER DATABASE test SET work_mem = '5MB'; REVOKE ALL ON DATABASE test FROM PUBLIC"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, empty."""
    monkeypatch.setenv("CLEANROOM_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def plugin(process_ground: Ground) -> PostgresPlugin:
    """A plugin whose server is a process."""
    return process_ground.plugin("db", "test")


def oids(handle: ServiceHandle) -> dict[str, int]:
    """The oids of all databases, by name."""
    with _databases.admin_connection(handle.metadata) as admin:
        rows = admin.execute("SELECT datname, oid FROM pg_database").fetchall()
    return {str(name): int(str(oid)) for name, oid in rows}


def ask(handle: ServiceHandle, statement: str) -> object:
    """The first value that a statement returns in the database of a handle."""
    with Database(handle).connect(autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall()[0][0] if cursor.description else None


SCRIPT = """
import sys

from cleanroom_plugin_postgres import Database, PostgresPlugin

plugin = PostgresPlugin("db", None, "test", backend="process").with_init_script(sys.argv[1])
handle = plugin.start()
with plugin.isolate(handle) as isolated, Database(isolated).connect() as connection:
    print(*(name for name, in connection.execute("SELECT datname FROM pg_database")))
plugin.stop(handle)
"""


def test_none_in_a_script(process_ground: Ground) -> None:
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT, ORDERS], capture_output=True, text=True, check=True
    ).stdout
    assert not [name for name in said.split() if "_spare" in name]


def pristine_spare(handle: ServiceHandle) -> tuple[str, int]:
    """Name and oid of the clone of the empty template."""
    [found] = [(name, oid) for name, oid in oids(handle).items() if name.startswith("test_spare_")]
    return found


def test_clone_of_an_empty_template(plugin: PostgresPlugin, start: Start) -> None:
    for _ in range(2):
        handle = start(plugin)
        name, spare = pristine_spare(handle)
        with plugin.isolate(handle) as first, plugin.isolate(handle) as second:
            found = oids(handle)
            assert found[first.require("database_name")] == spare
            assert second.require("database_name") in found
            assert name not in found
            for each in (first, second):
                ask(each, "CREATE TABLE orders (id int)")
        with plugin.isolate(handle) as third:
            assert third.url == first.url
            assert ask(third, "SELECT count(*) FROM pg_class WHERE relname = 'orders'") == 0


IN_TEMPLATE = "CREATE TABLE of_all_databases ()"


@pytest.mark.parametrize(
    "touches",
    [
        [IN_TEMPLATE, "ANALYZE"],
        [IN_TEMPLATE, "ALTER ROLE test PASSWORD 'secret'"],
        [IN_TEMPLATE, "ALTER ROLE test CONNECTION LIMIT 7"],
        [IN_TEMPLATE, "DROP DATABASE {spare}", "CREATE DATABASE {spare} TEMPLATE template0",
         "ALTER ROLE test PASSWORD 'secret'"],
        [IN_TEMPLATE, "REVOKE CONNECT ON DATABASE test FROM PUBLIC",
         "REVOKE CONNECT ON DATABASE {spare} FROM PUBLIC", "ALTER ROLE test PASSWORD 'secret'"],
        ["ALTER DATABASE template1 SET work_mem = '7MB'"],
        ["BEGIN", IN_TEMPLATE, "ROLLBACK"],
    ],
    ids=["table", "password", "role", "made again", "grants", "setting", "rolled back"],
)  # fmt: skip
def test_empty_template_that_was_touched_is_cloned(
    plugin: PostgresPlugin, start: Start, touches: list[str]
) -> None:
    """Whatever was written to the server: anybody can connect to the template of all databases."""
    handle = start(plugin.with_credentials("test", "secret"))
    name, spare = pristine_spare(handle)
    template = {**handle.metadata, "maintenance_database": "template1"}
    with _databases.admin_connection(template) as connection:
        for statement in touches:
            connection.execute(statement.format(spare=name).encode())
    with plugin.isolate(handle) as first:
        assert oids(handle)[first.require("database_name")] not in (spare, oids(handle).get(name))
        exists = "SELECT count(*) FROM pg_class WHERE relname = 'of_all_databases'"
        assert ask(first, exists) == int(touches[0] == IN_TEMPLATE)


def test_clone_is_there_for_the_second_template_too(plugin: PostgresPlugin, start: Start) -> None:
    """Who asks for the empty template first leaves the clone of the other one."""
    handle = start(plugin.with_init_script(ORDERS))
    spare = oids(handle)["test_spare"]
    empty = ServiceHandle(
        handle.id, handle.service_name, {**handle.metadata, "template": _databases.PRISTINE}
    )
    with plugin.isolate(empty) as first, plugin.isolate(handle) as second:
        assert oids(handle)[second.require("database_name")] == spare
        assert ask(second, "SELECT count(*) FROM orders") == 1
        assert ask(first, "SELECT count(*) FROM pg_class WHERE relname = 'orders'") == 0


def test_nobody_can_connect_to_it_before(plugin: PostgresPlugin, start: Start) -> None:
    handle = start(plugin.with_init_script(ORDERS))
    with _databases.admin_connection(handle.metadata) as admin:
        allowed = "SELECT datallowconn FROM pg_database WHERE datname = 'test_spare'"
        assert admin.execute(allowed).fetchall() == [(False,)]


@pytest.mark.parametrize(
    "touches",
    [
        ["ALTER DATABASE test_template ALLOW_CONNECTIONS true"],
        [
            "ALTER DATABASE test_template ALLOW_CONNECTIONS true",
            "ALTER DATABASE test_template ALLOW_CONNECTIONS false",
        ],
        [
            "ALTER DATABASE test_template IS_TEMPLATE false",
            "DROP DATABASE test_template",
            "CREATE DATABASE test_template TEMPLATE test ALLOW_CONNECTIONS false",
        ],
        ["ALTER DATABASE test_template SET work_mem = '7MB'"],
        ["GRANT CREATE ON DATABASE test_template TO pg_monitor"],
        ["ALTER DATABASE test_template CONNECTION LIMIT 7"],
    ],
    ids=["opened", "opened and closed", "made again", "setting", "grant", "limit"],
)
def test_template_that_was_touched_is_cloned_again(
    plugin: PostgresPlugin, start: Start, touches: list[str]
) -> None:
    handle = start(plugin.with_init_script(ORDERS))
    spare = oids(handle)["test_spare"]
    with _databases.admin_connection(handle.metadata) as admin:
        for statement in touches:
            admin.execute(statement.encode())
    with plugin.isolate(handle) as first:
        assert oids(handle)[first.require("database_name")] != spare
        assert ask(first, "SELECT count(*) FROM orders") == 1


def test_clone_of_what_scripts_have_made(plugin: PostgresPlugin, start: Start) -> None:
    plugin = plugin.with_init_script(ORDERS + SETTING)
    for _ in range(2):
        handle = start(plugin)
        found = oids(handle)
        with plugin.isolate(handle) as first, plugin.isolate(handle) as second:
            assert oids(handle)[first.require("database_name")] == found["test_spare"]
            for each in (first, second):
                assert ask(each, "SELECT count(*) FROM orders") == 1
                assert ask(each, "SHOW work_mem") == "5MB"
                name = each.require("database_name")
                assert not ask(
                    each, f"SELECT has_database_privilege('pg_monitor', '{name}', 'TEMP')"
                )
                ask(each, "DELETE FROM orders")
        with plugin.isolate(handle) as third:
            assert third.url == first.url
            assert ask(third, "SELECT count(*) FROM orders") == 1


def test_none_of_a_large_template(
    plugin: PostgresPlugin, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_prebuilt, "_LARGEST_SPARE", 1024**2)
    plugin = plugin.with_init_script(ORDERS)
    handle = start(plugin)
    assert not [name for name in oids(handle) if "_spare" in name]
    with plugin.isolate(handle) as first:
        assert ask(first, "SELECT count(*) FROM orders") == 1


@pytest.mark.parametrize("name", ["d" * 40, "Odd-$name"])
def test_names_that_need_care(process_ground: Ground, start: Start, name: str) -> None:
    plugin = process_ground.plugin("db", name).with_init_script(ORDERS)
    handle = start(plugin)
    spare = oids(handle)[f"{name}_spare"]
    with plugin.isolate(handle) as first:
        assert oids(handle)[first.require("database_name")] == spare
