"""The server that the last run had is launched while pytest collects, without a password."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cleanroom import HealthStatus
from cleanroom_runtime import _process
from tests.launched_ahead import CONFTEST, was_taken
from tests.leftovers import left_of_service
from tests.redis_grounds import Ground

TESTS = """
from pathlib import Path

import pytest
import redis

def test_server(redis_service, redis_db):
    assert Path("taken").read_text() in ("", redis_service.require("pid"))
    with redis_db.client() as client:
        client.set("key", "value")
    stranger = redis.Redis(host=redis_service.host, port=redis_service.port)
    with stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
"""


@pytest.fixture
def folder(
    pytester: pytest.Pytester,
    process_ground: Ground,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The folder of an inner run whose server is a process, with a cache of its own."""
    for name in os.environ:
        if name.startswith("CLEANROOM_") and not name.startswith("CLEANROOM_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLEANROOM_CACHE_DIR", str(tmp_path / "cache"))
    declare(pytester, process_ground)
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_it=TESTS)
    return pytester.path


def declare(pytester: pytest.Pytester, ground: Ground, more: str = "") -> None:
    """Declare the service."""
    (pytester.path / "cleanroom.toml").write_text(
        f'[services.cache]\nplugin = "redis"\nimage = "{ground.image}"\nbackend = "process"\n{more}'
    )


def run(pytester: pytest.Pytester) -> None:
    """Run the test in a process of its own."""
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(passed=1)


def test_server_of_the_last_run_is_launched_ahead(folder: Path, pytester: pytest.Pytester) -> None:
    """It is this run's alone all the same: a stranger is refused."""
    for taken in (False, True, True):
        run(pytester)
        assert was_taken(folder) is taken


def test_password_of_a_server_launched_ahead(
    folder: Path, pytester: pytest.Pytester, process_ground: Ground, tmp_path: Path
) -> None:
    """A password that was given is set in time, and stands in no note."""
    declare(pytester, process_ground, 'password = "hush-hush"\n')
    for taken in (False, True):
        run(pytester)
        assert was_taken(folder) is taken
    (note,) = (tmp_path / "cache" / "ahead").iterdir()
    assert "hush-hush" not in note.read_text()


def test_server_with_settings_is_launched_when_it_is_asked_for(
    folder: Path, pytester: pytest.Pytester, process_ground: Ground, tmp_path: Path
) -> None:
    """Settings may be secret, so they stand in no note."""
    run(pytester)
    assert not was_taken(folder)
    declare(pytester, process_ground, 'settings = { masterauth = "hush-hush" }\n')
    for _ in range(2):
        run(pytester)
        assert not was_taken(folder)
    (note,) = (tmp_path / "cache" / "ahead").iterdir()
    assert "hush-hush" not in note.read_text()


def test_port_that_somebody_took_meanwhile(
    process_ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that cannot have its port is ended, and another one gets another port."""
    free_port = _process.free_port
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        ports = iter([taken])
        monkeypatch.setattr(_process, "free_port", lambda: next(ports, None) or free_port())
        plugin = process_ground.plugin()
        handle = plugin.start()
    assert handle.port != taken
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    plugin.stop(handle)
    assert left_of_service(handle.id) == []
