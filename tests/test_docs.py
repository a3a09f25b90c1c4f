"""The documentation is complete, and what it shows works."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from cleanroom import (
    CleanroomError,
    ServiceHandle,
    SupportsIsolation,
    config,
    discovery,
    hooks,
    spans,
)
from cleanroom.config import load_config
from cleanroom_plugin_http import HttpPlugin
from cleanroom_plugin_postgres import PostgresPlugin
from cleanroom_plugin_redis import RedisPlugin
from cleanroom_runtime import BasePlugin, ContainerPlugin, pytest_plugin
from tests.pages import DOCS, ROOT, Block, blocks, make_project, pages

REFERENCE = DOCS / "reference"
PAGES = pytest.mark.parametrize(
    "page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()]
)

# --------------------------------------------------------------- what is shown works


def of_its_own(page: Path) -> bool:
    """Whether a page has files or commands that are no other page's."""
    named = any(block.file and not block.skip for block in blocks(page))
    return named or any(command not in PLAIN for command in commands_of(page))


def commands_of(page: Path) -> list[str]:
    """The commands of a page, each once, but those that prepare a user's machine."""
    commands = [command for block in runnable(page, "console") for command in block.commands]
    return [command for command in dict.fromkeys(commands) if not is_checked_only(command)]


def runnable(page: Path, language: str) -> list[Block]:
    return [block for block in blocks(page) if block.language == language and not block.skip]


PLAIN = ("pytest", "CLEANROOM_BACKEND=process pytest")
INSTALL = re.compile(r"(?:\.venv/bin/)?pip install (?P<what>.+)")
SET_UP = ("python3 -m venv .venv", ". .venv/bin/activate")


def is_checked_only(command: str) -> bool:
    """Whether a command prepares a user's machine: it is not run, but what it installs is there."""
    if command in SET_UP:
        return True
    install = INSTALL.fullmatch(command)
    if install is None:
        return False
    for name, extra in re.findall(r"(cleanroom-[a-z-]+)(?:\[(\w+)\])?", install["what"]):
        facts = project_of(name)
        assert not extra or extra in facts.get("optional-dependencies", {}), command
    return True


def project_of(distribution: str) -> dict[str, dict[str, object]]:
    """The table `[project]` of one of our distributions."""
    found = ROOT / "packages" / distribution.removeprefix("cleanroom-") / "pyproject.toml"
    facts: dict[str, dict[str, object]] = tomllib.loads(found.read_text())["project"]
    return facts


ALONE = [page for page in pages() if of_its_own(page)]


@pytest.mark.parametrize("page", ALONE, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_with_a_project_of_its_own_works(page: Path, tmp_path: Path) -> None:
    """Tests, scripts and commands of a page succeed, warnings being errors."""
    make_project(page, tmp_path)
    commands = commands_of(page)
    with_pytest = [command for command in commands if "pytest" in command and command != "pytest"]
    if with_pytest:  # ... collects what `pytest` alone would.
        commands = [command for command in commands if command != "pytest"]
    elif "pytest" not in commands and any(tmp_path.rglob("test_*.py")):
        commands.append("pytest")
    for command in commands:
        run(command, tmp_path)


def test_other_pages_work(tmp_path: Path) -> None:
    """The tests and scripts of all other pages succeed, in one project without any files."""
    others = [page for page in pages() if page not in ALONE]
    for page in others:
        make_project(page, tmp_path)
    assert len(list(tmp_path.glob("test_*.py"))) > 10
    run("pytest", tmp_path)


def test_the_test_that_the_tutorial_writes_passes(tmp_path: Path) -> None:
    """What the page of the example shop lets a newcomer write passes in that suite."""
    shop = tmp_path / "shop"
    shutil.copytree(ROOT / "examples" / "shop", shop)
    (block,) = (block for block in blocks(shop / "README.md") if block.has_tests)
    (shop / "tests" / "test_mine.py").write_text(block.text)
    run("CLEANROOM_BACKEND=process PYTHONPATH=. pytest tests/test_mine.py", shop)


API = """
import http.server, json, os, sys
import psycopg

class Orders(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204)
        self.end_headers()

    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
            connection.execute("INSERT INTO orders VALUES (%s)", [order["sku"]])
        self.do_GET()

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Orders).serve_forever()
"""


def test_the_test_that_the_readme_begins_with_passes(tmp_path: Path) -> None:
    """What newcomers are shown first passes, with an API that writes orders to its database."""
    (block,) = (block for block in blocks(ROOT / "README.md") if block.language == "python")
    (tmp_path / "test_readme.py").write_text(block.text)
    (tmp_path / "api.py").write_text(API)
    (tmp_path / "conftest.py").write_text(
        "from cleanroom_plugin_postgres import template\n\n"
        "postgres_template = template('orders.sql')\n"
    )
    (tmp_path / "orders.sql").write_text("CREATE TABLE orders (sku text);")
    (tmp_path / "cleanroom.toml").write_text(
        '[services.db]\nplugin = "postgres"\n[services.api]\nplugin = "http"\n'
        'command = ["python", "api.py", "{port}"]\nenv = { DATABASE_URL = "{db.url}" }\n'
    )
    run("CLEANROOM_BACKEND=process pytest", tmp_path)


def run(command: str, folder: Path) -> None:
    """Run a command as a user would who has everything installed."""
    done = subprocess.run(
        ["bash", "-euc", command],
        cwd=folder,
        env=surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"


def surroundings() -> dict[str, str]:
    """The environment variables that a page's commands are run with."""
    scripts = Path(sys.executable).parent
    # What is not needed is not loaded: it would take longer than most of the tests.
    names = ("cacheprovider", "randomly", "valkey", "asyncio", "anyio", "sybil", "Faker")
    switched_off = " ".join(f"-p no:{name}" for name in names)
    return {
        **{name: value for name, value in os.environ.items() if name != "CLEANROOM_BACKEND"},
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTEST_ADDOPTS": f"-q -W error --rootdir=. {switched_off}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@PAGES
def test_declarations_of_a_page_are_right(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a page shows of a `pyproject.toml` can be read, and has no unknown key."""
    for number, block in enumerate(runnable(page, "toml")):
        tomllib.loads(block.text)
        if "[tool.cleanroom" not in block.text:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "pyproject.toml").write_text(block.text)
        for service in load_config(folder):
            service.check()


# ---------------------------------------------------------------- nothing is missing


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def test_every_hook_is_documented() -> None:
    """The page of hooks names each of them."""
    named = [name for name in vars(hooks) if hasattr(getattr(hooks, name), "cleanroom_spec")]
    assert named
    assert missing(named, page("hooks.md")) == []


def test_every_pytest_option_is_documented() -> None:
    """The page of options names each that the pytest plugin adds."""
    parser = OptionRecorder()
    pytest_plugin.pytest_addoption(parser)
    assert parser.names
    assert missing(parser.names, page("options.md")) == []


class OptionRecorder:
    """Stands for pytest's parser, which has no public list of its options."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def getgroup(self, *_: str) -> OptionRecorder:
        return self

    def addoption(self, *names: str, **_: object) -> None:
        self.names += names

    def addini(self, name: str, *_: object, **__: object) -> None:
        self.names.append(name)


def test_every_fixture_is_documented(pytestconfig: pytest.Config) -> None:
    """The page of fixtures names each that our packages bring."""
    fixture_type = type(pytest.fixture(lambda: None))
    named = [
        name
        for module in ("cleanroom_runtime.fixtures", *hooks.fixture_modules())
        for name, value in vars(sys.modules[module]).items()
        if isinstance(value, fixture_type)
    ]
    assert {"cleanroom_env", "postgres_db", "redis_db", "http_service"} <= set(named)
    assert missing(named, page("fixtures.md")) == []


def test_every_declared_key_is_documented() -> None:
    """The page of declared services names each key, under its plugin or as one of every service."""
    general, *parts = re.split(r'^## `plugin = "(\w+)"`$', page("config.md"), flags=re.M)
    of_plugin = dict(zip(parts[::2], parts[1::2], strict=True))
    assert missing(config._OWN_KEYS, general) == []
    for plugin in ("postgres", "redis", "http", "container"):
        keys = config._option_names(discovery.load_plugin(plugin))
        assert keys
        described = of_plugin[plugin] + general
        if plugin == "container":  # "Every service but `container` also takes:"
            described = of_plugin[plugin] + general.partition("Every service but `container`")[0]
        assert missing(keys, described) == []


def test_every_environment_variable_is_documented() -> None:
    """The page of environment variables names each that the code reads or sets."""
    sources = "\n".join(
        source.read_text(encoding="utf-8") for source in ROOT.glob("packages/*/src/**/*.py")
    )
    named = set(re.findall(r"CLEANROOM_[A-Z][A-Z_]*[A-Z]", sources))
    assert {"CLEANROOM_BACKEND", "CLEANROOM_CACHE_DIR"} <= named
    assert missing(named, page("environment.md")) == []


def test_every_span_is_documented() -> None:
    """The page of spans names each, and each attribute that the code sets."""
    source = Path(spans.__file__).read_text(encoding="utf-8")
    named = re.findall(r'_span\("([a-z_.]+)"', source)
    assert len(named) >= 10
    for module in ROOT.glob("packages/*/src/**/*.py"):
        named += re.findall(r'span\.set\("([a-z_.]+)"', module.read_text(encoding="utf-8"))
    assert missing(named, page("spans.md")) == []


def test_every_error_is_documented() -> None:
    """The page of errors names each class of the tree."""
    named = [kind.__name__ for kind in errors_of(CleanroomError) if kind.__module__ in OURS]
    assert len(named) >= 9
    assert missing(named, page("errors.md"), quoted=False) == []


OURS = ("cleanroom", "cleanroom._errors")


def errors_of(kind: type[CleanroomError]) -> list[type[CleanroomError]]:
    return [kind, *(error for each in kind.__subclasses__() for error in errors_of(each))]


SERVE = [sys.executable, "-m", "http.server", "{port}", "--bind", "{host}"]
PROCESSES = (
    PostgresPlugin("documented-db", backend="process"),
    RedisPlugin("documented-cache", backend="process"),
    HttpPlugin("documented-api", command=SERVE, backend="process"),
)


@pytest.mark.parametrize("plugin", PROCESSES, ids=lambda plugin: plugin.plugin_type)
def test_every_metadata_key_is_documented(
    plugin: BasePlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page of metadata names each key of a process, and of a server that is used by its URL."""
    monkeypatch.delenv("CLEANROOM_BACKEND", raising=False)
    with running(plugin) as handle:
        assert undocumented(plugin, handle) == []
        external = type(plugin)("documented-elsewhere", url=handle.url)
        with running(external) as elsewhere:
            assert elsewhere.metadata["backend"] == "external"
            assert undocumented(external, elsewhere) == []


@pytest.mark.parametrize("service", ["postgres", "redis", "http", "any image"])
def test_every_metadata_key_of_a_container_is_documented(
    service: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page of metadata names each key of a container."""
    monkeypatch.delenv("CLEANROOM_BACKEND", raising=False)
    image = request.getfixturevalue(f"{'http' if service == 'any image' else service}_image")
    plugin: BasePlugin
    if service == "postgres":
        plugin = PostgresPlugin("documented-db", image)
    elif service == "redis":
        plugin = RedisPlugin("documented-cache", image)
    elif service == "http":
        plugin = HttpPlugin("documented-api", image, port=8080)
    else:
        plugin = ContainerPlugin("documented-any", image, [8080, 8025])
        plugin = plugin.with_wait(http="/health", port=8080)
    with running(plugin) as handle:
        assert handle.metadata["backend"] == "container"
        assert undocumented(plugin, handle) == []


@contextlib.contextmanager
def running(plugin: BasePlugin) -> Iterator[ServiceHandle]:
    """Start a service for the context."""
    handle = plugin.start()
    try:
        yield handle
    finally:
        plugin.stop(handle)


def undocumented(plugin: BasePlugin, handle: ServiceHandle) -> list[str]:
    """The keys of a service, and of a clean slice of it, that the page does not name."""
    known = dict(handle.metadata)
    if isinstance(plugin, SupportsIsolation):
        with plugin.isolate(handle) as isolated:
            known |= isolated.metadata
    text = page("metadata.md")
    # Of further ports the page has one, for all.
    return missing((re.sub(r"^(host|port)_\d+$", r"\1_8025", key) for key in known), text)


def test_every_metadata_key_that_is_written_is_documented() -> None:
    """The page of metadata names each key that code asks a handle for."""
    asked = re.compile(r'(?:metadata(?:\.get\(|\[)|\.require\()"([a-z_]+)"')
    named = {
        key
        for source in ROOT.glob("packages/*/src/**/*.py")
        for key in asked.findall(source.read_text(encoding="utf-8"))
    }
    assert {"container_id", "url"} <= named
    assert missing(named, page("metadata.md")) == []


def missing(names: Iterable[str], text: str, *, quoted: bool = True) -> list[str]:
    """Return which of the names do not stand in a text, in backticks if they are to be quoted."""
    return [name for name in sorted(set(names)) if (f"`{name}`" if quoted else name) not in text]
