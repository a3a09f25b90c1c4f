"""`cleanroom new`: what it asks, what it refuses, and what it writes."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cleanroom_cli import _new
from cleanroom_cli._command import cleanroom
from cleanroom_cli._new import template

New = Callable[..., Result]

GIVEN = ("--service", "box", "--image", "example/box:1", "--port", "4711")


@pytest.fixture
def new(tmp_path: Path) -> New:
    """Runs `cleanroom new` in a folder of its own: its options, and what is typed."""

    def run(*options: str, typed: str = "") -> Result:
        arguments = ["new", "--folder", str(tmp_path), *options]
        return CliRunner().invoke(cleanroom, arguments, input=typed)

    return run


def test_what_is_not_given_is_asked_for(new: New, tmp_path: Path) -> None:
    """Each question that matters is asked, with a default where there is one."""
    typed = ["search", "example/search:4", "9200", "search-server", "--port={port}", "", ""]
    typed += ["http", "/ready", "", "Ann Author", "ISC"]
    result = new(typed="\n".join(typed) + "\n")
    assert result.exit_code == 0, result.output
    assert "http: a path answers" in result.output
    assert "Name of the Python package [cleanroom_plugin_search]" in result.output
    assert "For command" not in result.output
    project = tmp_path / "cleanroom-plugin-search"
    assert f"{project} is made" in result.output
    assert "hatch test" in result.output
    plugin = (project / "src" / "cleanroom_plugin_search" / "_plugin.py").read_text()
    assert 'IMAGE = "example/search:4"\nPORT = 9200\n' in plugin
    assert 'argv=[str(server.executable), f"--port={workspace.port}"]' in plugin
    assert '            "/ready",\n' in plugin
    assert "Ann Author" in (project / "LICENSE").read_text()


def test_a_wrong_answer_is_asked_for_again(new: New, tmp_path: Path) -> None:
    """What was wrong is said, and the same question comes once more."""
    typed = ["class", "My Box", "box", "Box:", "example/box:1", "0", "x", "4711", "", "ping", "tcp"]
    typed += ["json", "pytest", "", "GPL", "BSD-2-Clause"]
    result = new("--author", "Ann", typed="\n".join(typed) + "\n")
    for said in (
        "service is 'class': it is a keyword of Python",
        "service is 'My Box': a letter, then letters and digits, all lower-case",
        "image is 'Box:': it is no image",
        "port is '0': a port is a number from 1 to 65535",
        "port is 'x': a port is a number from 1 to 65535",
        "readiness is 'ping': it is one of tcp, http, command, log, client",
        "package is 'json': it is a module of Python's own",
        "package is 'pytest': a package of this name is installed",
        "license is 'GPL': it is one of MIT",
    ):
        assert said in result.output
    assert result.exit_code == 0, result.output
    assert (tmp_path / "cleanroom-plugin-box" / "LICENSE").read_text().startswith("BSD 2-Clause")


def test_questions_keep_to_the_width_of_the_terminal(
    new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long question goes on in the next line between two words; no empty default is shown."""
    monkeypatch.setenv("COLUMNS", "80")
    typed = ["box", "example/box:1", "4711", "box-server", "--port={port}", "", "", "client"]
    typed += ["box>=1", "box.Client(host, port, timeout)", "client.ping()", "", "", ""]
    result = new(typed="\n".join(typed) + "\n")
    assert result.exit_code == 0, result.output
    asked = result.output.partition("Licence")[0]
    assert max(len(line.partition(": ")[0]) for line in asked.splitlines()) <= 78
    words = " ".join(asked.split())
    assert "{directory} its own folder, {config} its configuration file: --port" in words
    assert "(empty: none): box-server" in words


def test_answers_that_end_too_early(new: New, tmp_path: Path) -> None:
    """Where nobody answers, the command says what it lacks, and nothing is written."""
    result = new(typed="box\n")
    assert result.exit_code == 2
    assert "image has no answer: give --image, or type it" in result.output
    assert not list(tmp_path.iterdir())


def test_nothing_is_asked_without_input(new: New, tmp_path: Path) -> None:
    """What is not given has its default."""
    result = new("--no-input", *GIVEN)
    assert result.exit_code == 0, result.output
    plugin = tmp_path / "cleanroom-plugin-box" / "src" / "cleanroom_plugin_box" / "_plugin.py"
    assert "probes.ask_tcp(endpoint, timeout)" in plugin.read_text()
    assert "process" not in plugin.read_text()


def test_what_pip_compiles_of_the_template_is_left_out(
    new: New, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a template that was installed with bytecode for its files no bytecode is written."""
    installed = tmp_path / "installed"
    shutil.copytree(template(), installed)
    compileall.compile_dir(installed, quiet=2)
    assert list(installed.glob("*distribution*/**/*.pyc"))
    monkeypatch.setattr(_new, "_IN_THE_WHEEL", installed)
    assert new("--no-input", *GIVEN).exit_code == 0
    assert not list((tmp_path / "cleanroom-plugin-box").rglob("__pycache__"))


def test_all_that_is_missing_or_wrong_is_told_at_once(new: New, tmp_path: Path) -> None:
    """Without input each answer that is missing or wrong is told, and nothing is written."""
    result = new("--no-input", "--port", "70000", "--server", "a b", "--readiness", "client")
    assert result.exit_code == 2
    for said in (
        "service has no answer: give --service",
        "image has no answer: give --image",
        "port is '70000'",
        "server is 'a b': it is the name of a program",
        "server_arguments has no answer: give --server-arguments",
        "client has no answer: give --client",
        "client_opens has no answer: give --client-opens",
        "client_asks has no answer: give --client-asks",
    ):
        assert said in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--service", "redis"], "service is 'redis': cleanroom-plugin-redis 0.1.0 is installed"),
        (["--service", "container"], "cleanroom-runtime, which is installed, has a plugin of this"),
        (["--service", "b" * 23], "at most 22 characters"),
        (["--author", " "], "author is ' ': it is empty"),
        (["--author", "A\nB"], "it has a line break or a control character"),
        (["--author", "{{ 1 }}"], "a brace followed by a brace"),
        (["--image", "a" * 90], "it is longer than 84 characters"),
        (["--server", "x", "--server-arguments", "-p 1"], "{port} has to stand where the server"),
        (["--server", "x", "--server-arguments", "'{port}"], "it is no command line: No closing"),
        (["--server", "x", "--server-arguments", "{config}"], "give it where server_arguments has"),
        (["--readiness", "http", "--http-path", "ready"], "a path begins with '/'"),
        (["--readiness", "log", "--log-line", "("], "it is no regular expression: missing )"),
        (["--readiness", "command", "--command", " "], "command is ' ': it is empty"),
    ],
)
def test_answers_that_would_not_do(new: New, tmp_path: Path, options: list[str], said: str) -> None:
    """An answer that the plugin could not live with is refused, with the reason."""
    result = new("--no-input", *GIVEN, *options)
    assert result.exit_code == 2
    assert said in result.output
    assert not list(tmp_path.iterdir())


def test_what_follows_from_a_wrong_answer_is_not_told(new: New) -> None:
    """Of a wrong service nothing is said of the package that would be named for it."""
    result = new("--no-input", *GIVEN, "--service", "Box")
    assert "service is 'Box'" in result.output
    assert "package is" not in result.output


@pytest.mark.parametrize(
    ("question", "answer", "said"),
    [
        ("client", "library", "with the oldest version that will do"),
        ("client-opens", "library.Client(", "it is no expression in Python"),
        ("client-opens", "one.Client(two.options, timeout)", "it refers to one module"),
        ("client-opens", "library.Client(url)", "it has to be given timeout"),
        ("client-asks", "server.ping()", "refers to client, and to nothing else"),
    ],
)
def test_clients_that_would_not_do(new: New, question: str, answer: str, said: str) -> None:
    """What is asked of a client library has to be Python that can be written down."""
    options = {
        "readiness": "client",
        "client": "library>=1",
        "client-opens": "library.Client(url, timeout=timeout)",
        "client-asks": "client.ping()",
        question: answer,
    }
    given = [part for key, value in options.items() for part in (f"--{key}", value)]
    result = new("--no-input", *GIVEN, *given)
    assert result.exit_code == 2
    assert said in result.output


def test_a_folder_that_is_there_is_left_as_it_is(new: New, tmp_path: Path) -> None:
    """Where the folder exists it is named, before anything else is asked."""
    project = tmp_path / "cleanroom-plugin-box"
    project.mkdir()
    (project / "notes").write_text("mine")
    result = new(typed="box\n")
    assert result.exit_code == 2
    assert f"{project} exists already" in result.output
    assert [path.name for path in project.iterdir()] == ["notes"]


def test_a_folder_that_cannot_be_written(new: New, tmp_path: Path) -> None:
    """Where the plugin cannot be written, the reason is told."""
    (tmp_path / "file").touch()
    result = new("--no-input", *GIVEN, "--folder", str(tmp_path / "file" / "below"))
    assert result.exit_code == 1
    assert "the plugin could not be written: " in result.output


def test_nothing_is_noted_elsewhere(tmp_path: Path) -> None:
    """Cookiecutter's own settings are not read; its notes and temporary files are not left."""
    home = tmp_path / "home"
    home.mkdir()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (home / ".cookiecutterrc").write_text("default_context:\n  license: ISC\n")
    done = subprocess.run(
        [sys.executable, "-m", "cleanroom_cli", "new", "--no-input", *GIVEN, "--author", "Ann"],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(home), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    licence = tmp_path / "cleanroom-plugin-box" / "LICENSE"
    assert licence.read_text().startswith("MIT License")
    assert [path.name for path in home.iterdir()] == [".cookiecutterrc"]
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_the_wheel_brings_the_template(tmp_path: Path) -> None:
    """The command makes the same from its wheel, which a source distribution gives as well."""
    source = Path(__file__).parents[1]
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "unpacked"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(unpacked)], check=True)
    for path in template().rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            copy = unpacked / "cleanroom_cli" / "_template" / path.relative_to(template())
            assert copy.read_bytes() == path.read_bytes()
    code = "import cleanroom_cli, cleanroom_cli.__main__ as m; print(cleanroom_cli); m.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "new", "--no-input", *GIVEN],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
    )
    assert str(unpacked) in done.stdout
    assert (tmp_path / "cleanroom-plugin-box" / "src" / "cleanroom_plugin_box").is_dir(), done
