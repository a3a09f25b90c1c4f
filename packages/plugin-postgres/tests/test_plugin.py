"""What the plugin takes, refuses and shows, without starting anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cleanroom import (
    CleanroomError,
    ServicePlugin,
    SupportsIsolation,
    SupportsLogs,
    ValidationError,
)
from cleanroom_plugin_postgres import PostgresPlugin
from cleanroom_plugin_postgres._client import describe, make_url, parse_url, url_for


def test_it_is_a_plugin() -> None:
    """It has the four members of a plugin, isolates, and has logs."""
    plugin = PostgresPlugin()
    assert plugin.name == "postgres"
    for protocol in (ServicePlugin, SupportsIsolation, SupportsLogs):
        assert isinstance(plugin, protocol)


def test_every_with_returns_another_plugin(tmp_path: Path) -> None:
    """A plugin is never changed: what is added is in the copy alone."""
    plugin = PostgresPlugin("db", "postgres:15", "shop")
    before = dict(vars(plugin))
    changed = (
        plugin.with_credentials("shopkeeper", "pass")
        .with_env("A", "1")
        .with_setting("work_mem", "8MB")
        .with_init_script("SELECT 1")
    )
    assert vars(plugin) == before
    assert type(changed) is PostgresPlugin
    assert changed.container("postgres:15").env["A"] == "1"
    assert "work_mem=8MB" in (changed.container("postgres:15").command or [])
    assert "A" not in plugin.container("postgres:15").env


def test_later_values_win() -> None:
    """The same variable or setting given again replaces the earlier value."""
    plugin = PostgresPlugin().with_env("A", "1").with_env("A", "2")
    plugin = plugin.with_setting("work_mem", 1).with_setting("work_mem", 2)
    spec = plugin.container("postgres:15")
    assert spec.env["A"] == "2"
    assert [each for each in spec.command or [] if "work_mem" in each] == ["work_mem=2"]


def test_no_secret_is_shown() -> None:
    """The repr tells plugins apart and has no password, neither a given nor a random one."""
    plugin = PostgresPlugin("db", "postgres:15", url="postgresql://u:hidden@localhost/").with_env(
        "API_KEY", "hidden"
    )
    assert repr(plugin) == "PostgresPlugin(name='db', image='postgres:15')"
    plugin = plugin.with_credentials("user", "hidden")
    assert "hidden" not in repr(plugin) + repr(plugin.container("postgres:15"))


def test_passwords_are_random() -> None:
    """Two plugins without credentials have different passwords."""
    passwords = {PostgresPlugin().describe("h", 1)["password"] for _ in range(2)}
    assert len(passwords) == 2


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "1st"}),
        ("name", {"name": "with space"}),
        ("name", {"name": "a" * 64}),
        ("image", {"image": ""}),
        ("image", {"image": "Postgres:15"}),
        ("image", {"image": "postgres:"}),
        ("image", {"image": "postgres:15 alpine"}),
        ("image", {"image": 15}),
        ("database_name", {"database_name": ""}),
        ("database_name", {"database_name": "two words"}),
        ("database_name", {"database_name": "a" * 41}),
        ("database_name", {"database_name": "template1"}),
        ("database_name", {"database_name": None}),
        ("backend", {"backend": "docker"}),
        ("backend", {"backend": None}),
        ("url", {"url": ""}),
        ("url", {"url": "localhost:5432"}),
        ("url", {"url": "mysql://localhost/test"}),
        ("url", {"url": "postgresql:///test"}),
        ("url", {"url": "postgresql://localhost:65536/test"}),
        ("url", {"url": "postgresql://[::1/test"}),
        ("url", {"url": 5432}),
        ("start_timeout", {"start_timeout": -1}),
        ("start_timeout", {"start_timeout": 0}),
        ("start_timeout", {"start_timeout": float("nan")}),
        ("start_timeout", {"start_timeout": "60"}),
        ("health_timeout", {"health_timeout": float("inf")}),
        ("health_timeout", {"health_timeout": True}),
    ],
)
def test_malformed_arguments(argument: str, arguments: dict[str, Any]) -> None:
    """The constructor refuses a malformed argument and names it, with its value."""
    with pytest.raises(ValidationError) as caught:
        PostgresPlugin(**arguments)
    assert caught.value.message.startswith(argument)
    assert repr(arguments[argument]) in caught.value.message
    assert caught.value.hint
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, CleanroomError)


@pytest.mark.parametrize(
    ("method", "arguments", "says"),
    [
        ("with_credentials", ("", "x"), "username is ''"),
        ("with_credentials", ("pg_x", "x"), "username is 'pg_x'"),
        ("with_credentials", ('a"b', "x"), "username is 'a\"b'"),
        ("with_credentials", ("a\nb", "x"), "username is 'a\\nb'"),
        ("with_credentials", ("ö" * 32, "x"), f"username is '{'ö' * 32}'"),
        ("with_credentials", (None, "x"), "username is None"),
        ("with_credentials", ("user", ""), "password is empty"),
        ("with_credentials", ("user", "a\nb"), "password is empty, has several lines"),
        ("with_env", ("", "1"), "key is ''"),
        ("with_env", ("A B", "1"), "key is 'A B'"),
        ("with_env", ("A", 1), "value of A is 1"),
        ("with_env", ("POSTGRES_USER", "x"), "key is 'POSTGRES_USER'"),
        ("with_env", ("POSTGRES_PASSWORD_FILE", "/x"), "key is 'POSTGRES_PASSWORD_FILE'"),
        ("with_env", ("PGDATA", "/data"), "key is 'PGDATA'"),
        ("with_env", ("POSTGRES_INITDB_ARGS", "-E 'C"), "value of POSTGRES_INITDB_ARGS is"),
        ("with_setting", ("work mem", 1), "key is 'work mem'"),
        ("with_setting", ("Port", 5432), "key is 'Port'"),
        ("with_setting", ("work_mem", None), "value of work_mem is None"),
        ("with_init_script", (Path("nowhere.sql"),), "does not exist"),
        ("with_init_script", (Path(__file__),), "is of no kind that can be run"),
    ],
)
def test_malformed_changes(method: str, arguments: tuple[Any, ...], says: str) -> None:
    """So does every `with_...`, at once and not when the service is started."""
    with pytest.raises(ValidationError) as caught:
        getattr(PostgresPlugin(), method)(*arguments)
    assert says in caught.value.message


def test_a_refused_url_shows_no_password() -> None:
    """A URL is named without what stands before the host, however the password is written."""
    with pytest.raises(ValidationError) as caught:
        PostgresPlugin(url="postgresql://user:se/cr@et@localhost/test")
    assert "localhost/test" in str(caught.value)
    assert not any(part in str(caught.value) for part in ("se/", "cr", "et@"))


# ------------------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    ("url", "facts"),
    [
        ("postgresql://localhost", ("localhost", "5432", "postgres", "", "postgres", "")),
        ("postgres://u:p@db:1/x", ("db", "1", "u", "p", "x", "")),
        ("postgresql://u:p@[::1]:5433/x", ("::1", "5433", "u", "p", "x", "")),
        ("postgresql://u%40v:%2F%25@h/d%20b", ("h", "5432", "u@v", "/%", "d b", "")),
        (
            "postgresql://u@h/x?sslmode=require&password=p%2B+&options=-c%20a%3Db",
            ("h", "5432", "u", "p++", "x", "sslmode=require&options=-c%20a%3Db"),
        ),
    ],
)
def test_urls_are_read(url: str, facts: tuple[str, ...]) -> None:
    """Host, port, user, password, database and parameters are found, IPv6 and quotes included."""
    assert tuple(parse_url(url).values()) == facts


def test_urls_are_written_as_they_are_read() -> None:
    """What a URL is made of is what is read from it."""
    parts = ("::1", 5433, "u@v", "p/%:", "d b")
    read = parse_url(make_url(*parts, parameters="sslmode=require"))
    assert tuple(read.values()) == ("::1", "5433", "u@v", "p/%:", "d b", "sslmode=require")


@pytest.mark.parametrize(
    ("driver", "url"),
    [
        ("libpq", "postgresql://u:p%40@h:1/d?sslmode=require"),
        ("psycopg", "postgresql+psycopg://u:p%40@h:1/d?sslmode=require"),
        ("psycopg2", "postgresql+psycopg2://u:p%40@h:1/d?sslmode=require"),
        ("asyncpg", "postgresql+asyncpg://u:p%40@h:1/d"),
        ("pg8000", "postgresql+pg8000://u:p%40@h:1/d"),
        ("jdbc", "jdbc:postgresql://h:1/d?user=u&password=p%40&sslmode=require"),
    ],
)
def test_urls_for_drivers(driver: str, url: str) -> None:
    """Each driver gets the URL it reads; parameters of libpq go to who knows them."""
    assert url_for(describe("h", 1, "u", "p@", "d", "sslmode=require"), driver) == url


def test_an_unknown_driver() -> None:
    """A driver that is not known is refused, and the known ones are named."""
    with pytest.raises(ValidationError, match="driver is 'odbc'") as caught:
        url_for(describe("h", 1, "u", "p", "d"), "odbc")
    assert "asyncpg" in str(caught.value.hint)
