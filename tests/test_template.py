"""The template makes plugins that are whole: typed, linted, built, and with tests that pass."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cleanroom_cli._new import render, template
from tests.availability import cannot_run
from tests.images import MEMCACHED, NGINX
from tests.pages import blocks

ROOT = Path(__file__).parents[1]
ANSWERS = sorted(Path(__file__).with_name("answers").glob("*.toml"))
IMAGES = {"11211": MEMCACHED, "80": NGINX}
REAL = [ROOT / "packages" / f"plugin-{name}" for name in ("http", "postgres", "redis")]


def answers_in(path: Path) -> dict[str, str]:
    """Return the answers of a file; the image is the one that tests use of that server."""
    answers = tomllib.loads(path.read_text())
    return {
        "image": IMAGES[answers["port"]].name,
        "server": "",
        "server_arguments": "",
        "author": "The authors",
        "package": f"cleanroom_plugin_{answers['service'].replace('-', '_')}",
        **answers,
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where the plugins are, which the workers of pytest-xdist share."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / "template"
    folder.mkdir(exist_ok=True)
    return folder


@contextlib.contextmanager
def once(place: Path, what: str) -> Iterator[bool]:
    """Say whether a thing is still to be made, which one worker does while the others wait."""
    done = place / f"{what}.done"
    with (place / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not done.exists()
        done.touch()


@pytest.fixture(scope="module")
def projects(place: Path) -> Mapping[str, Path]:
    """A plugin of each file of answers, in one folder."""
    folder = place / "plugins"
    with once(place, "projects") as wanted:
        if wanted:
            folder.mkdir()
            for path in ANSWERS:
                render(answers_in(path), folder)
    return {
        path.stem: folder / f"cleanroom-plugin-{answers_in(path)['service']}" for path in ANSWERS
    }


def run(*command: str | Path, cwd: str | Path, **variables: str) -> str:
    """Run a command; return what it wrote."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def needs(*modules: str) -> None:
    """Skip what needs tools that are not installed; under CI, fail."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        cannot_run(f"not installed: {', '.join(missing)}")


def read(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text())


def test_each_way_to_ask_has_answers() -> None:
    """There are answers for each way in which readiness is asked."""
    assert {answers_in(path)["readiness"] for path in ANSWERS} == {
        *("client", "command", "http", "log", "tcp")
    }


def test_nothing_is_left_to_replace(projects: Mapping[str, Path]) -> None:
    """No file has a placeholder, a thing to do, or a mark of the template's language."""
    for project in projects.values():
        for path in project.rglob("*"):
            if path.is_file() and path.name != "LICENSE":
                text = path.read_text().replace("${{ matrix.python }}", "")
                found = re.search(r"TODO|FIXME|replace me|your[-_ ]|\{\{|\{%|cookiecutter", text)
                assert found is None, f"{path}: {found}"


def test_what_is_to_be_read_is_short(projects: Mapping[str, Path]) -> None:
    """The one module that says what the service is has fewer than 60 lines of code."""
    for name, project in projects.items():
        (path,) = project.glob("src/*/_plugin.py")
        own = ast.get_source_segment(path.read_text(), ast.parse(path.read_text()).body[-1])
        assert own is not None
        assert len([line for line in own.splitlines() if line.strip()]) < 60, name


def test_the_licence_is_the_one_that_was_asked_for(projects: Mapping[str, Path]) -> None:
    """The text is whole, names the author where it has a place for that, and is in the metadata."""
    beginnings = {
        "tcp": ("MIT", "MIT License"),
        "client": ("Apache-2.0", "Apache License"),
        "command": ("BSD-3-Clause", "BSD 3-Clause License"),
        "http": ("MPL-2.0", "Mozilla Public License Version 2.0"),
        "log": ("ISC", "ISC License"),
    }
    for name, (licence, beginning) in beginnings.items():
        assert read(projects[name])["project"]["license"] == licence
        text = (projects[name] / "LICENSE").read_text().strip()
        assert text.startswith(beginning)
        assert len(text) > 500
    assert 'Renée "O\'Neil" Łuksza' in (projects["tcp"] / "LICENSE").read_text()
    author = read(projects["tcp"])["project"]["authors"]
    assert author == [{"name": 'Renée "O\'Neil" Łuksza'}]


def test_lint_and_format(projects: Mapping[str, Path]) -> None:
    """Each passes its own rules of ruff."""
    needs("ruff")
    ruff = (sys.executable, "-m", "ruff")
    folder = projects["tcp"].parent
    run(*ruff, "check", "--no-cache", folder, cwd=folder)
    run(*ruff, "format", "--no-cache", "--check", "--diff", folder, cwd=folder)


def test_a_service_named_for_tests(tmp_path: Path) -> None:
    """The class of a plugin whose name begins with `Test` is not taken for tests."""
    names = {"service": "test-box", "package": "cleanroom_plugin_test_box"}
    project = render({**answers_in(ANSWERS[0]), **names}, tmp_path)
    said = run(
        *(sys.executable, "-m", "pytest", "--collect-only", "-q", "-W", "error"),
        *("-p", "no:cacheprovider", "tests"),
        cwd=project,
        PYTHONPATH="src",
    )
    assert "TestTestBoxPlugin::test_is_a_plugin" in said
    needs("ruff")
    run(sys.executable, "-m", "ruff", "check", "--no-cache", ".", cwd=project)


def test_long_answers_fit(tmp_path: Path) -> None:
    """The longest answers that are allowed give code that passes the rules as well."""
    needs("ruff")
    word = "q" * 70
    longest = {
        "service": "a-service-of-22-letter",
        "package": "p" * 40,
        "image": f"registry.example.com:5000/{'team/' * 6}name:{'1' * 20}",
        "port": "65535",
        "server": "s" * 40,
        "server_arguments": f"--port={{port}} --{'o' * 60}",
        "author": "a" * 80,
    }
    for readiness in (
        {"readiness": "tcp"},
        {"readiness": "http", "http_path": f"/{word}"},
        {"readiness": "command", "command": f"{word} {{port}}"},
        {"readiness": "log", "log_line": word},
        {
            "readiness": "client",
            "client": "library>=1.0",
            "client_opens": f"library.{'C' * 60}(url, timeout)",
            "client_asks": f"client.{word}()",
        },
    ):
        folder = tmp_path / readiness["readiness"]
        folder.mkdir()
        project = render({**longest, **readiness}, folder)
        ruff = (sys.executable, "-m", "ruff")
        run(*ruff, "check", "--no-cache", ".", cwd=project)
        run(*ruff, "format", "--no-cache", "--check", "--diff", ".", cwd=project)


@pytest.fixture(scope="module")
def installed(place: Path, projects: Mapping[str, Path]) -> Path:
    """The Python of an environment where all were built and are installed beside our packages."""
    needs("build", "hatchling", "pip", "pymemcache")
    environment = place / "env"
    with once(place, "installed") as wanted:
        if wanted:
            install(environment, list(projects.values()))
    return environment / "bin" / "python"


def install(environment: Path, folders: Sequence[Path]) -> None:
    """Build distributions, and install them into a new environment that has ours as well."""
    build(environment.parent / "wheels", folders)
    wheels = sorted(environment.parent.glob("wheels/*.whl"))
    assert len(wheels) == len(folders)
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment.parent)
    site = sysconfig.get_path("purelib", vars={"base": str(environment)})
    ours = sysconfig.get_path("purelib")
    Path(site, "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    python = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    # Without an index: what they need is there already, in the versions that they ask for.
    run(*pip, "install", "--quiet", "--no-index", "--no-compile", *wheels, cwd=site)


def build(target: Path, folders: Sequence[Path]) -> None:
    """Build distributions; the wheel of each is built of its source distribution."""
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", target)
    with ThreadPoolExecutor(2) as builders:
        said = builders.map(lambda folder: run(*command, folder, cwd=folder), folders)
        assert all("Successfully built" in each for each in said)


@pytest.mark.slow
def test_types(projects: Mapping[str, Path], installed: Path) -> None:
    """Each passes its own rules of mypy, which are the strict ones."""
    needs("mypy")
    folder = projects["tcp"].parent
    for project in projects.values():
        said = run(
            *(sys.executable, "-m", "mypy", "--python-executable", installed),
            *("--cache-dir", folder / "mypy"),
            cwd=project,
        )
        assert "Success: no issues found in 8 source files" in said


USERS_SUITE = '''
"""The suite of somebody who has installed the plugins beside ours."""

import contextlib
import socket

import psycopg
import pymemcache

from cleanroom import HealthStatus
from cleanroom_plugin_memcached import MemcachedPlugin


def test_all_at_once(memcached_service, postgres_db, redis_db):
    with psycopg.connect(postgres_db.url) as connection:
        assert connection.execute("SELECT 42").fetchone() == (42,)
    redis_db.client().set("key", "value")
    address = memcached_service.host, memcached_service.port
    with contextlib.closing(pymemcache.Client(address, timeout=5)) as client:
        client.set("key", "value")
        assert client.get("key") == b"value"


def test_declared(cleanroom_env, nginx_service):
    front = cleanroom_env["front"]
    assert front.url == nginx_service.url
    with socket.create_connection((front.host, front.port)) as connection:
        connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        assert b" 200 OK" in connection.recv(1000)


def test_a_server_of_somebody_else(memcached_service, monkeypatch):
    monkeypatch.delenv("CLEANROOM_BACKEND")
    plugin = MemcachedPlugin("theirs", url=memcached_service.url)
    handle = plugin.start()
    assert (handle.metadata["backend"], handle.port) == ("external", memcached_service.port)
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    plugin.stop(handle)
    socket.create_connection((memcached_service.host, memcached_service.port)).close()
'''


def test_users_suite(installed: Path, tmp_path: Path) -> None:
    """Fixtures of new plugins, and services that are declared of them, go with ours."""
    (tmp_path / "cleanroom.toml").write_text('[services.front]\nplugin = "nginx"\n')
    (tmp_path / "test_all.py").write_text(USERS_SUITE)
    said = run(
        *(installed, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider", tmp_path),
        cwd=tmp_path,
        CLEANROOM_BACKEND="process",
    )
    assert "3 passed" in said
    assert re.search(r"memcached: process, .*version 1\.\d+", said), said


@pytest.mark.parametrize("name", ["client", "http"])
def test_the_readme_works_when_pasted(
    name: str, projects: Mapping[str, Path], installed: Path, tmp_path: Path
) -> None:
    """What the README of a new plugin shows are a test, a script and a conftest that work."""
    shown = blocks(projects[name] / "README.md")
    test, script, conftest = (block.text for block in shown if block.language == "python")
    (declared,) = (block.text for block in shown if block.language == "toml")
    assert len(tomllib.loads(declared)["tool"]["cleanroom"]["services"]) == 1
    service = answers_in(ROOT / "tests" / "answers" / f"{name}.toml")["service"].replace("-", "_")
    (tmp_path / "conftest.py").write_text(conftest)
    also = f"def test_further(second_service, {service}_service):\n"
    also += f"    assert second_service.url != {service}_service.url\n"
    (tmp_path / "test_shown.py").write_text(f"{test}\n\n{also}")
    (tmp_path / "script.py").write_text(script)
    python = (installed, "-W", "error")
    said = run(
        *(*python, "-m", "pytest", "-p", "no:cacheprovider", tmp_path),
        cwd=tmp_path,
        CLEANROOM_BACKEND="process",
    )
    assert "2 passed" in said
    assert " process\n" in run(*python, "script.py", cwd=tmp_path, CLEANROOM_BACKEND="process")


def own_tests(projects: Mapping[str, Path], python: Path, names: tuple[str, ...], what: str) -> str:
    """Run the own tests of some plugins in one process; return what it wrote."""
    folder = projects["tcp"].parent
    (folder / "pytest.toml").write_text(
        '[pytest]\nstrict = true\naddopts = ["--import-mode=importlib", "-ra"]\n'
        'filterwarnings = ["error"]\n'
    )
    settings = read(projects["tcp"])["tool"]["pytest"]
    assert settings["addopts"] == ["--import-mode=importlib", "-ra"]
    return run(
        *(python, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", "-k", what),
        *(projects[name] / "tests" for name in names),
        cwd=folder,
    )


def test_own_tests_on_processes(projects: Mapping[str, Path], installed: Path) -> None:
    """Those with a local server pass the kit, and their further tests, with a real one."""
    said = own_tests(projects, installed, ("client", "http"), "not container")
    assert re.search(r"\d\d passed", said)


@pytest.mark.slow
def test_hatch_test_passes_at_once(projects: Mapping[str, Path], tmp_path: Path) -> None:
    """An author's first command passes, in an environment made of what the plugin asks for."""
    needs("build", "hatchling")
    hatch = shutil.which("hatch")
    if hatch is None:
        cannot_run("hatch is not installed")
    wheels = tmp_path / "wheels"
    build(wheels, [ROOT / "packages" / "core", ROOT / "packages" / "runtime"])
    said = run(
        *("env", "-u", "HATCH_ENV_ACTIVE", "-u", "VIRTUAL_ENV", "-u", "PYTHONPATH"),
        *(hatch, "test", "-k", "not container"),
        cwd=projects["tcp"],
        HATCH_DATA_DIR=str(tmp_path / "hatch"),
        PIP_FIND_LINKS=str(wheels),
        UV_FIND_LINKS=str(wheels),
    )
    assert re.search(r"\d\d passed", said)


@pytest.mark.slow
def test_own_tests_in_containers(
    projects: Mapping[str, Path], installed: Path, memcached_image: str, nginx_image: str
) -> None:
    """They pass the kit with their image."""
    said = own_tests(projects, installed, ("command", "http", "log", "tcp"), "container")
    assert re.search(r"\d\d passed", said)


# -- the template and our own plugins


def files_of(project: Path) -> set[str]:
    """The files of a distribution that can be seen; its package's folder is called `package`."""
    (package,) = (path.parent.name for path in project.glob("src/*/__init__.py"))
    return {
        str(path.relative_to(project)).replace(f"src/{package}/", "src/package/")
        for path in project.rglob("*")
        if path.is_file() and not {"__pycache__", ".pytest_cache"} & set(path.parts)
    }


STANDS_ALONE = {".gitignore", ".github/workflows/ci.yml"}
"""What our own plugins have at the root of the workspace."""


def test_skeleton_is_that_of_our_plugins(projects: Mapping[str, Path]) -> None:
    """Each file of a new plugin is in ours as well, but for what one needs that stands alone."""
    (new,) = {frozenset(files_of(project)) for project in projects.values()}
    assert new >= STANDS_ALONE
    for ours in REAL:
        assert new - files_of(ours) == STANDS_ALONE, ours.name


def test_metadata_is_that_of_our_plugins(projects: Mapping[str, Path]) -> None:
    """Ranges, classifiers, entry points and the way to build are the same as in ours."""
    for project in projects.values():
        new = read(project)
        for folder in REAL:
            ours = read(folder)
            for key in ("requires-python", "classifiers", "readme", "license-files", "dynamic"):
                assert new["project"][key] == ours["project"][key], key
            assert new["build-system"] == ours["build-system"]
            assert new["project"]["dependencies"][0] == ours["project"]["dependencies"][0]
            assert new["project"].keys() == ours["project"].keys() - {"optional-dependencies"}
            points = new["project"]["entry-points"]
            assert points.keys() == ours["project"]["entry-points"].keys()
            assert new["tool"]["hatch"].keys() - {"envs"} == ours["tool"]["hatch"].keys()


def test_a_library_is_required_as_in_our_plugins(projects: Mapping[str, Path]) -> None:
    """What others make is required from a version on."""
    assert read(projects["client"])["project"]["dependencies"][1:] == ["pymemcache>=4.0"]
    assert read(projects["tcp"])["project"]["dependencies"][1:] == []


NOT_IN_TESTS = {"markers", "pythonpath"}
"""Settings of our tests alone: they import each other's helpers, and some are slow."""


def test_tools_are_set_up_as_in_the_workspace(projects: Mapping[str, Path]) -> None:
    """Lint, format, types and tests have the rules of ours; what differs is named here."""
    ours = read(ROOT)["tool"]
    for name, project in projects.items():
        new = read(project)["tool"]
        lint = {**ours["ruff"]["lint"], "per-file-ignores": {"**/tests/**": ["D", "S", "T20"]}}
        assert lint["per-file-ignores"].items() <= ours["ruff"]["lint"]["per-file-ignores"].items()
        shared = {key: value for key, value in ours["ruff"].items() if key != "extend-exclude"}
        assert new["ruff"] == {**shared, "src": ["src"], "lint": lint}
        types = {**ours["mypy"], "files": ["src", "tests"]}
        if name == "client":
            types["overrides"] = [{"module": ["pymemcache.*"], "ignore_missing_imports": True}]
        assert new["mypy"] == types
        tests = {key: value for key, value in ours["pytest"].items() if key not in NOT_IN_TESTS}
        tests |= {"addopts": ["--import-mode=importlib", "-ra"], "testpaths": ["tests"]}
        assert set(tests["addopts"]) < set(ours["pytest"]["addopts"])
        assert new["pytest"] == tests
        for check in ("code", "fmt"):
            environment = f"hatch-check-{check}"
            assert new["hatch"]["envs"][environment] == ours["hatch"]["envs"][environment]
        theirs = new["hatch"]["envs"]
        assert theirs["hatch-test"]["matrix"] == ours["hatch"]["envs"]["hatch-test"]["matrix"]
        # Pyright is for whoever wants it.
        assert (
            theirs["hatch-check-types"]["dependencies"][0]
            in (ours["hatch"]["envs"]["hatch-check-types"]["dependencies"])
        )


# -- wrong answers


def by_cookiecutter(folder: Path, *answers: str) -> subprocess.CompletedProcess[str]:
    """Use the template by cookiecutter's own command, in an empty home."""
    command = (sys.executable, "-m", "cookiecutter", "--no-input")
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [*command, "--output-dir", folder / "out", ROOT / "cookiecutter-plugin", *answers],
        cwd=folder,
        env={**os.environ, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )


def test_cookiecutter_itself(tmp_path: Path) -> None:
    """Without `cleanroom new` the template does the same, and says so where the folder is there."""
    done = by_cookiecutter(tmp_path)
    assert done.returncode == 0, done.stdout
    project = tmp_path / "out" / "cleanroom-plugin-memcached"
    assert (
        'IMAGE = "memcached:1.6"'
        in (project / "src" / "cleanroom_plugin_memcached" / "_plugin.py").read_text()
    )
    (project / "notes").write_text("mine")
    done = by_cookiecutter(tmp_path)
    assert done.returncode != 0
    assert "already exists" in done.stdout
    assert (project / "notes").read_text() == "mine"


def test_cookiecutter_writes_nothing_of_wrong_answers(tmp_path: Path) -> None:
    """All that is wrong is said at once, and no folder is left."""
    done = by_cookiecutter(tmp_path, "service=redis", "port=0", "image=:", "package=json")
    assert done.returncode != 0
    for said in (
        "service is 'redis': cleanroom-plugin-redis",
        "port is '0': a port is a number from 1 to 65535",
        "image is ':': it is no image",
        "package is 'json': it is a module of Python's own",
    ):
        assert said in done.stdout
    assert not list((tmp_path / "out").glob("*"))


def test_the_template_is_where_the_command_looks() -> None:
    """In a checkout the command uses the template at the root."""
    assert template() == ROOT / "cookiecutter-plugin"
