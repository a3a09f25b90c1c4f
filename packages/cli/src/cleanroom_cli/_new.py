"""`cleanroom new`: a plugin for another service, from the template that this package carries."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Protocol, cast

import click

_EXAMPLES = {"service", "image", "port", "server", "server_arguments"}
"""Questions that the template answers for an example, which is nobody's own."""
_IN_THE_WHEEL = Path(__file__).parent / "_template"
_IN_THE_SOURCES = Path(__file__).parents[4] / "cookiecutter-plugin"


class _Checks(Protocol):
    """What the template knows of answers, see its hooks/pre_gen_project.py."""

    def problem(self, question: str, answers: Mapping[str, str]) -> str | None: ...

    def is_asked(self, question: str, answers: Mapping[str, str]) -> bool: ...


def template() -> Path:
    """Return the folder of the template."""
    return _IN_THE_WHEEL if _IN_THE_WHEEL.is_dir() else _IN_THE_SOURCES


def render(answers: Mapping[str, str], folder: Path) -> Path:
    """Write a plugin.

    Args:
        answers: The answer to each question of the template.
        folder: Where its own folder will be made.

    Returns:
        Its own folder.

    Raises:
        click.ClickException: It could not be written; nothing is left of it.
    """
    import shutil
    import tempfile

    from cookiecutter.exceptions import CookiecutterException  # type: ignore[import-untyped]
    from cookiecutter.main import cookiecutter  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory(prefix="cleanroom-new-") as scratch:
        # Nothing is read from the user's home, and nothing noted there.
        config = Path(scratch, "config.yaml")
        config.write_text(json.dumps({"replay_dir": scratch, "cookiecutters_dir": scratch}))
        # It leaves a file wherever temporary files are made.
        usual, tempfile.tempdir = tempfile.tempdir, scratch
        source = Path(scratch, "template")
        try:
            # Where pip has installed the template, it has put bytecode there.
            shutil.copytree(template(), source, ignore=shutil.ignore_patterns("__pycache__"))
            made: object = cookiecutter(
                str(source),
                no_input=True,
                extra_context=dict(answers),
                output_dir=str(folder),
                config_file=str(config),
            )
        except (CookiecutterException, OSError) as exc:
            raise click.ClickException(f"the plugin could not be written: {exc}") from exc
        finally:
            tempfile.tempdir = usual
    return Path(str(made))


def _ask(given: Mapping[str, str | None], folder: Path, no_input: bool) -> dict[str, str]:
    """Return the answer to each question: the one that was given, or what is typed."""
    checks = _checks()
    answers: dict[str, str] = {}
    wrong: list[str] = []
    for question in _questions():
        default = _default(question, answers)
        answer = given[question]
        asked = checks.is_asked(question, {**answers, question: ""})
        if answer is None and asked and not no_input:
            answers[question] = _prompt(question, default, answers)
        else:
            answers[question] = (default or "") if answer is None else answer
            missing = answer is None and default is None and asked
            found = _missing(question) if missing else checks.problem(question, answers)
            follows = question == "package" and answer is None and bool(wrong)
            wrong += [found] if found and not follows else []
        if question == "service" and not wrong:
            _refuse_existing(folder / f"cleanroom-plugin-{answers[question]}")
    if wrong:
        raise click.UsageError("\n".join(wrong))
    return answers


def _prompt(question: str, default: str | None, answers: Mapping[str, str]) -> str:
    """Ask until the answer is right."""

    def checked(answer: str) -> str:
        found = _checks().problem(question, {**answers, question: answer})
        if found:
            raise click.BadParameter(found)
        return answer

    text, choices = _said(question)
    for choice in choices:
        click.echo(f"  {choice}")
    try:
        shown = _in_lines(text, f" [{default}]: " if default else ": ")
        answer = click.prompt(
            shown, default=default, show_default=bool(default), value_proc=checked
        )
        return str(answer)
    except click.Abort as exc:
        if isinstance(exc.__context__, EOFError):  # Nobody is there, which is no interruption.
            raise click.UsageError(_missing(question)) from exc
        raise


def _in_lines(question: str, end: str) -> str:
    """Break a question between words, so that with its end it keeps to the terminal's width."""
    from shutil import get_terminal_size

    width = max(get_terminal_size().columns, len(end) + 20)
    return click.wrap_text(question + "\0" * len(end), width).rstrip("\0")


def _refuse_existing(project: Path) -> None:
    if project.exists():
        raise click.UsageError(
            f"{project} exists already; move it away, or choose another --folder or service"
        )


def _missing(question: str) -> str:
    return f"{question} has no answer: give {_option(question)}, or type it"


def _default(question: str, answers: Mapping[str, str]) -> str | None:
    """What an answer is when none is given; none, where there has to be one."""
    if question == "server":
        return ""
    if question == "package":
        return f"cleanroom_plugin_{answers['service'].replace('-', '_')}"
    if question == "author":
        return _author() or f"The authors of cleanroom-plugin-{answers['service']}"
    value = _context()[question]
    text = str(cast("list[str]", value)[0] if isinstance(value, list) else value)
    if question in _EXAMPLES or not (text or question == "server_configuration"):
        return None
    return text


def _author() -> str:
    """The user's name as git knows it."""
    import subprocess

    try:
        told = subprocess.run(
            ["git", "config", "user.name"], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return told.stdout.strip()


@cache
def _context() -> Mapping[str, object]:
    return cast("dict[str, object]", json.loads((template() / "cookiecutter.json").read_text()))


def _questions() -> list[str]:
    return [key for key in _context() if not key.startswith("_")]


def _said(question: str) -> tuple[str, list[str]]:
    """Return a question in words, and the answers to choose from, if there is a choice."""
    prompts = cast("Mapping[str, str | Mapping[str, str]]", _context()["__prompts__"])
    text, choices = prompts[question], _context()[question]
    if isinstance(text, str):
        return text, cast("list[str]", choices) if isinstance(choices, list) else []
    return text["__prompt__"], [said for key, said in text.items() if key != "__prompt__"]


@cache
def _checks() -> _Checks:
    path = template() / "hooks" / "pre_gen_project.py"
    spec = spec_from_file_location("cleanroom_cli._checks", path)
    assert spec is not None  # noqa: S101 - it is a Python file
    assert spec.loader is not None  # noqa: S101
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast("_Checks", module)


def _option(question: str) -> str:
    return f"--{question.replace('_', '-')}"


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give the command an option for each question."""
    for question in reversed(_questions()):
        text, choices = _said(question)
        if choices:
            text += f" ({'; '.join(choices)})"
        option = click.option(_option(question), question, metavar="TEXT", help=text)
        command = option(command)
    return command


@click.command(short_help="Make a plugin for another service.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    show_default="the current one",
    help="Where the plugin's own folder is made.",
)
@click.option("--no-input", is_flag=True, help="Ask nothing; take defaults for what is not given.")
@_with_options
def new(folder: Path, no_input: bool, **given: str | None) -> None:
    """Make a plugin for another service: a whole distribution, with tests that pass.

    What is not given by an option is asked for.
    """
    answers = _ask(given, folder, no_input)
    project = render(answers, folder)
    click.echo(f"{project} is made. Its tests start real services:\n")
    click.echo(f"  cd {project}\n  hatch test\n")
    click.echo(f"What there is to say of {answers['service']} is in")
    click.echo(f"  {project / 'src' / answers['package'] / '_plugin.py'}")
