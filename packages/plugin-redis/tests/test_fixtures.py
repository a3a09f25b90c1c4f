"""The fixtures, in test sessions of their own."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.leftovers import gone_within, left_of, until
from tests.redis_grounds import Ground

BOUND = 5.0
"""Seconds within which nothing is left of a run, however it ended."""


@pytest.fixture
def suite(pytester: pytest.Pytester, ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test suite that declares a service on each ground in turn."""
    monkeypatch.delenv("CI", raising=False)
    pytester.makepyprojecttoml(f"""
        [tool.cleanroom.services.cache]
        plugin = "redis"
        image = "{ground.image}"
        backend = "{ground.backend}"
    """)


@pytest.fixture
def process_suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test suite that declares nothing and takes what is installed."""
    monkeypatch.setenv("CLEANROOM_BACKEND", "process")
    pytester.makepyprojecttoml("[tool.pytest]\n")


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)


@pytest.mark.usefixtures("suite")
def test_fixtures(pytester: pytest.Pytester) -> None:
    """A test gets an empty database of the run's server, at the same URL as the one before."""
    pytester.makepyfile("""
        import pytest, redis

        urls = set()

        @pytest.mark.parametrize("number", range(3))
        def test_it(redis_db, redis_service, number):
            client = redis_db.client(decode_responses=True)
            assert client.dbsize() == 0
            client.hset("cart:1", "apples", 3)
            assert client.hgetall("cart:1") == {"apples": "3"}
            with redis.Redis.from_url(redis_db.url) as other:
                assert other.hget("cart:1", "apples") == b"3"
            assert redis_db.handle.id == redis_service.id
            assert redis_service.service_name == "cache"
            urls.add(redis_db.url)

        def test_urls():
            assert len(urls) == 1
    """)
    run(pytester, "-p", "no:randomly", "-W", "error").assert_outcomes(passed=4)


@pytest.mark.usefixtures("process_suite")
def test_workers_are_alone(pytester: pytest.Pytester) -> None:
    """Workers share one server and never meet: each writes the same keys and finds no others."""
    pytester.makepyfile("""
        import os, pathlib
        import pytest

        @pytest.mark.parametrize("number", range(60))
        def test_it(redis_db, redis_service, number):
            client = redis_db.client()
            assert client.dbsize() == 0
            for step in range(1, 11):
                assert client.incr("count") == step
            note = f"{redis_service.id} {redis_db.url}"
            with (pathlib.Path("notes") / os.environ["PYTEST_XDIST_WORKER"]).open("a") as notes:
                notes.write(note + "\\n")
    """)
    notes = pytester.mkdir("notes")
    run(pytester, "-n", "4").assert_outcomes(passed=60)
    of_workers = [set(path.read_text().splitlines()) for path in notes.iterdir()]
    assert len(of_workers) == 4
    assert all(len(each) == 1 for each in of_workers)
    lines = [each.pop() for each in of_workers]
    assert len({line.split()[0] for line in lines}) == 1
    assert len({line.split()[1] for line in lines}) == 4


@pytest.mark.usefixtures("process_suite")
def test_several_services(pytester: pytest.Pytester) -> None:
    """Of several declared services the default one is served, the others by name."""
    pytester.makepyprojecttoml("""
        [tool.cleanroom.services.cache]
        plugin = "redis"
        default = true

        [tool.cleanroom.services.limits]
        plugin = "redis"
    """)
    pytester.makepyfile("""
        def test_it(redis_db, redis_service, cleanroom_env):
            assert redis_service.service_name == "cache"
            assert cleanroom_env["limits"].service_name == "limits"
            assert cleanroom_env["limits"].port != redis_service.port
    """)
    run(pytester).assert_outcomes(passed=1)


@pytest.mark.usefixtures("process_suite")
def test_not_used_is_not_started(pytester: pytest.Pytester) -> None:
    """A session that asks for no database starts none, and imports no client library."""
    pytester.makepyfile("""
        import sys

        def test_it():
            assert "cleanroom_plugin_redis.fixtures" in sys.modules
            assert not {"redis", "cleanroom_plugin_redis._plugin"} & set(sys.modules)
    """)
    result = run(pytester)
    result.assert_outcomes(passed=1)
    assert "ready in" not in result.stdout.str()


# -------------------------------------------------------------------------- keeping

FAILS = """
    import pytest

    @pytest.mark.parametrize("number", range(4))
    def test_it(redis_db, number):
        client = redis_db.client()
        assert client.dbsize() == 0
        client.set("number", number)
        with open("urls", "a") as urls:
            urls.write(redis_db.url + "\\n")
        assert number not in (1, 2)
"""


@pytest.mark.usefixtures("suite")
def test_keep(pytester: pytest.Pytester, ground: Ground) -> None:
    """What failed tests had in their databases is kept, under URLs that the report names."""
    pytester.makepyfile(FAILS)
    result = run(pytester, "--cleanroom-keep", "-p", "no:randomly")
    try:
        result.assert_outcomes(passed=2, failed=2)
        kept = dict(re.findall(r"kept: \S+\[(\d)\]: (\S+)", result.stdout.str()))
        assert sorted(kept) == ["1", "2"]
        for number, url in kept.items():
            with redis.Redis.from_url(url) as client:
                assert client.get("number") == number.encode()
                assert client.dbsize() == 1
        urls = (pytester.path / "urls").read_text().split()
        assert len(set(urls)) == 1, "others keep their URL"
        assert urls[0] not in kept.values()
    finally:
        end = re.search(r"end it with: (.*)", result.stdout.str())
        assert end is not None
        subprocess.run(shlex.split(end[1]), check=True)
    run_id = shlex.split(end[1])[-1]
    gone_within(BOUND, run_id, engine=ground.backend == "container")


@pytest.mark.usefixtures("process_suite")
def test_nothing_to_keep(pytester: pytest.Pytester) -> None:
    """Where all tests pass, nothing is kept and the run ends."""
    pytester.makepyfile("""
        def test_it(redis_db, redis_service):
            open("run", "w").write(redis_service.id.partition("-")[0])
    """)
    result = run(pytester, "--cleanroom-keep")
    result.assert_outcomes(passed=1)
    assert "kept:" not in result.stdout.str()
    gone_within(BOUND, (pytester.path / "run").read_text())


# ----------------------------------------------------------------- how sessions end

HOLDS = """
    import pathlib, time

    def test_it(redis_db, redis_service):
        redis_db.client().set("key", 1)
        text = pathlib.Path("unsaid")
        text.write_text(redis_service.id.partition("-")[0])
        text.rename("held")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.01)
"""


@pytest.mark.usefixtures("suite")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_after_a_signal(pytester: pytest.Pytester, ground: Ground, number: signal.Signals) -> None:
    """Nothing is left of a session that ends by a signal in the middle of a test."""
    in_engine = ground.backend == "container"
    pytester.makepyfile(HOLDS)
    process = pytester.popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    held = Path(pytester.path, "held")
    until(held.exists, 60)
    run_id = held.read_text()
    assert left_of(run_id, engine=in_engine)
    process.send_signal(number)
    gone_within(BOUND, run_id, engine=in_engine)
    process.wait(10)


# --------------------------------------------------------------- fixtures of one's own


@pytest.mark.usefixtures("process_suite")
def test_further_fixtures(pytester: pytest.Pytester) -> None:
    """One line makes fixtures of another service, of one that is not declared, of another scope."""
    pytester.makepyprojecttoml("""
        [tool.cleanroom.services.cache]
        plugin = "redis"
        default = true

        [tool.cleanroom.services.limits]
        plugin = "redis"
    """)
    pytester.makeconftest("""
        from cleanroom_plugin_redis import RedisPlugin, redis_fixtures

        limits_service, limits_db = redis_fixtures("limits")
        small_db = redis_fixtures(RedisPlugin("small").with_setting("maxmemory", "5mb")).db
        module_db = redis_fixtures(scope="module").db
    """)
    suite = """
        import pytest

        urls = set()

        @pytest.mark.parametrize("number", range(1, 4))
        def test_it(module_db, redis_db, limits_db, limits_service, small_db, number):
            assert limits_db.handle.port == limits_service.port != redis_db.handle.port
            for database in (redis_db, limits_db, small_db):
                assert database.client().incr("count") == 1
            assert small_db.client().config_get("maxmemory")["maxmemory"] == str(5 << 20)
            assert module_db.client().incr("count") == number
            assert module_db.handle.port == redis_db.handle.port
            print("at", redis_db.number)
    """
    alone = """
        def test_it(redis_db):
            print("at", redis_db.number)
    """
    pytester.makepyfile(test_a=suite, test_b=suite, test_c=alone)
    result = run(pytester, "-s", "-p", "no:randomly", "-W", "error")
    result.assert_outcomes(passed=7)
    numbers = {line.split()[-1] for line in result.outlines if "at " in line and "test_" in line}
    assert len(numbers) == 1
