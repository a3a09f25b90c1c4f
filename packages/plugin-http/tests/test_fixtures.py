"""The fixture `http_service` and declared services, in test sessions of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.leftovers import gone_within, left_of, until

BOUND = 5.0
"""Seconds within which nothing is left of a run, however it ended."""


@pytest.fixture
def declare(
    pytester: pytest.Pytester,
    command: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., None]:
    """Declares the service of the tests, with further keys."""
    monkeypatch.delenv("CLEANROOM_BACKEND", raising=False)

    def declare(*options: str, more: str = "", name: str = "api") -> None:
        declared = json.dumps(command(*options))
        path = pytester.path / "pyproject.toml"
        before = path.read_text() if path.exists() else ""
        path.write_text(
            f'{before}[tool.cleanroom.services.{name}]\nplugin = "http"\n'
            f"command = {declared}\n{more}\n"
        )

    return declare


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error", *options)


def test_fixture(pytester: pytest.Pytester, declare: Callable[..., None]) -> None:
    """The declared service is started once, with its keys, and asked through its session."""
    pytester.mkdir("place")
    declare(
        more="""
        cwd = "place"
        env = { COLOUR = "{host} green" }
        health = { path = "/json", expect = { status = "ok" }, timeout = 2 }
    """
    )
    pytester.makepyfile("""
        urls = set()

        def test_one(http_service):
            told = http_service.session.get("/echo").json()
            assert told["env"]["COLOUR"] == "127.0.0.1 green"
            assert told["cwd"].endswith("/place")
            assert http_service.handle.service_name == "api"
            urls.add(http_service.url)

        def test_two(http_service):
            assert http_service.session.get("/health").ok
            urls.add(http_service.url)

        def test_urls():
            assert len(urls) == 1
    """)
    result = run(pytester, "-p", "no:randomly")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*api: process*ready in*"])


@pytest.mark.parametrize(
    "health",
    [
        '{ path = "/teapot", expect = 418 }',
        '{ path = "/health", expect = "OK" }',
        '{ path = "/health", expected = "OK" }',
        '{ path = "/health", matches = "^all" }',
        '{ path = "/list", expect = ["a", { b = 1 }] }',
        '{ path = "/moved", expect = 302, follow_redirects = false }',
        '{ path = "/private", headers = { X-Key = "secret key" } }',
        "{}",
    ],
)
def test_health_keys(declare: Callable[..., None], pytester: pytest.Pytester, health: str) -> None:
    """Every kind of answer but a callable can be declared."""
    from cleanroom.config import load_config

    declare(more=f"health = {health}")
    (declared,) = load_config(pytester.path)
    declared.check()
    plugin = declared.build({})
    handle = plugin.start()
    plugin.stop(handle)


def test_a_health_check_that_fails(pytester: pytest.Pytester, declare: Callable[..., None]) -> None:
    """A test whose service does not come up shows why, the log, and what to change."""
    declare(more='health = { path = "/fail" }\nstart_timeout = 1')
    pytester.makepyfile("def test_it(http_service): pass")
    result = run(pytester)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([
        "*StartTimeoutError: service 'api' (process): not ready after 1 s*answered 500*",
        "*hint: *health = { path = ..., expect = ... }*",
        "*the shop opens*",
    ])  # fmt: skip


def test_an_unknown_key(pytester: pytest.Pytester, declare: Callable[..., None]) -> None:
    """A key that is misspelt is named with its file, its table and the nearest known one."""
    declare(more="helth = {}")
    pytester.makepyfile("def test_it(http_service): pass")
    result = run(pytester)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([
        "*pyproject.toml [[]tool.cleanroom.services.api[]] helth: unknown key*",
        "*did you mean 'health'?*",
    ])  # fmt: skip


def test_it_gets_the_url_of_another(
    pytester: pytest.Pytester, declare: Callable[..., None]
) -> None:
    """A service is given what another one is reached by, and each worker has its own."""
    declare(name="stock", more="health = {path = '/health'}")
    declare(more='env = { STOCK_URL = "{stock.url}" }\ndefault = true')
    pytester.makepyfile("""
        import os, pathlib
        import pytest

        @pytest.mark.parametrize("number", range(10))
        def test_it(http_service, cleanroom_env, number):
            told = http_service.session.get("/echo").json()
            assert told["env"]["STOCK_URL"] == cleanroom_env["stock"].url
            text = f"{http_service.url} {cleanroom_env['stock'].url}"
            pathlib.Path(os.environ["PYTEST_XDIST_WORKER"]).write_text(text)
    """)
    run(pytester, "-n", "2", "--dist", "each").assert_outcomes(passed=20)
    of_workers = [(pytester.path / name).read_text().split() for name in ("gw0", "gw1")]
    assert of_workers[0][0] != of_workers[1][0]
    assert of_workers[0][1] == of_workers[1][1]


def test_further_fixtures(pytester: pytest.Pytester, declare: Callable[..., None]) -> None:
    """One line makes fixtures of another service, of an undeclared one, of a session per test."""
    declare(more="default = true")
    declare(name="admin", more="env = { ROLE = 'admin' }")
    pytester.makeconftest("""
        import sys
        from cleanroom_plugin_http import HttpPlugin, http_fixtures

        admin_service = http_fixtures("admin").service
        own_api = http_fixtures(scope="function").service
        command = [sys.executable, "-m", "http.server", "{port}", "--bind", "{host}"]
        files = http_fixtures(HttpPlugin("files", command=command)).service
    """)
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("number", range(2))
        def test_it(http_service, admin_service, own_api, files, number):
            assert admin_service.session.get("/echo").json()["env"]["ROLE"] == "admin"
            assert "ROLE" not in http_service.session.get("/echo").json()["env"]
            assert len({each.url for each in (http_service, admin_service, files)}) == 3
            assert "conftest.py" in files.session.get("/").text
            assert own_api.url == http_service.url
            assert not own_api.session.cookies
            own_api.session.cookies.set("visited", "yes")
    """)
    run(pytester).assert_outcomes(passed=2)


def test_not_used_is_not_imported(pytester: pytest.Pytester, declare: Callable[..., None]) -> None:
    """A session that asks for no service imports no HTTP library."""
    declare()
    pytester.makepyfile("""
        import sys

        def test_it():
            assert "cleanroom_plugin_http.fixtures" in sys.modules
            assert not {"requests", "cleanroom_plugin_http._plugin"} & set(sys.modules)
    """)
    run(pytester).assert_outcomes(passed=1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_after_a_signal(
    pytester: pytest.Pytester, declare: Callable[..., None], number: signal.Signals
) -> None:
    """Nothing is left of the service and its workers when the session ends by a signal."""
    declare("--do", "workers", more="health = {path = '/health'}")
    pytester.makepyfile("""
        import pathlib, time

        def test_it(http_service):
            text = pathlib.Path("unsaid")
            text.write_text(http_service.handle.id.partition("-")[0])
            text.rename("held")
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                time.sleep(0.01)
    """)
    process = pytester.popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    held = Path(pytester.path, "held")
    until(held.exists, 60)
    run_id = held.read_text()
    until(lambda: len([line for line in left_of(run_id) if "shop.py" in line]) == 3)
    process.send_signal(number)
    gone_within(BOUND, run_id)
    process.wait(10)
