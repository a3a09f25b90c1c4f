"""Checks the answers, before anything is written.

The command `cleanroom new` asks it too, after each answer.
"""

from __future__ import annotations

import ast
import json
import keyword
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata, util

READINESS = ("tcp", "http", "command", "log", "client")
LICENSES = ("MIT", "Apache-2.0", "BSD-3-Clause", "BSD-2-Clause", "ISC", "MPL-2.0")

_SERVICE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PACKAGE = re.compile(r"[a-z][a-z0-9_]*")
_PROGRAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_PATH = re.compile(r"/[!-~]*")
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(\[[a-z0-9,-]+\])?>=\d+(\.\d+)*"
)
_NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    r"(?:(?=[^/]*[.:]|localhost/)[A-Za-z0-9.-]+(?::\d+)?/)?"
    rf"{_NAME}(?:/{_NAME})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]*)?(?:@sha256:[0-9a-f]+)?"
)
_LONGEST_SERVICE = 22
_LONGEST_PACKAGE = 40
_LONGEST_IMAGE_NAME = 60
_LONGEST_PROGRAM = 40
_LONGEST = 84
"""What is longer does not fit into a line of the code that is written."""
_KNOWN_TO_CLIENTS = ("host", "port", "url", "timeout")


def problems(answers: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with the answers, each in a sentence that names question and answer."""
    for question in _CHECKS:
        found = problem(question, answers)
        if found:
            yield found


def problem(question: str, answers: Mapping[str, str]) -> str | None:
    """Return what is wrong with one answer, if anything.

    Args:
        question: Its key.
        answers: All that were given so far, by their keys.
    """
    answer = answers[question]
    if not is_asked(question, answers):
        return None
    lines = answer.splitlines() if question == "server_configuration" else [answer]
    if any(not line.isprintable() for line in lines):
        found: str | None = "it has a line break or a control character"
    elif any(len(line) > _LONGEST for line in lines):
        found = f"it is longer than {_LONGEST} characters"
    elif any("{" + mark in answer for mark in "%#{"):
        found = "a brace followed by a brace, % or # means something to the template; put a space"
    else:
        found = _CHECKS[question](answer, answers)
    return f"{question} is {answer!r}: {found}" if found else None


def is_asked(question: str, answers: Mapping[str, str]) -> bool:
    """Whether a question matters after the answers to those before it."""
    if question in ("server_arguments", "server_configuration", "server_version"):
        return bool(answers["server"])
    wanted = {"http_path": "http", "command": "command", "log_line": "log"}.get(question)
    if question.startswith("client"):
        wanted = "client"
    return wanted is None or answers["readiness"] == wanted


def _service(answer: str, answers: Mapping[str, str]) -> str | None:
    if not _SERVICE.fullmatch(answer) or len(answer) > _LONGEST_SERVICE:
        return (
            "a letter, then letters and digits, all lower-case, words joined by '-'; "
            f"at most {_LONGEST_SERVICE} characters"
        )
    if keyword.iskeyword(answer):
        return "it is a keyword of Python; name it for what it serves"
    distribution = f"cleanroom-plugin-{answer}"
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        pass
    else:
        return f"{distribution} {version} is installed already; choose another name"
    for entry in metadata.entry_points(group="cleanroom.plugins", name=answer):
        owner = entry.dist.name if entry.dist else "another distribution"
        return f"{owner}, which is installed, has a plugin of this name; choose another one"
    return None


def _package(answer: str, answers: Mapping[str, str]) -> str | None:
    if not _PACKAGE.fullmatch(answer) or len(answer) > _LONGEST_PACKAGE:
        return (
            "a lower-case letter, then lower-case letters, digits and '_'; "
            f"at most {_LONGEST_PACKAGE} characters"
        )
    if keyword.iskeyword(answer):
        return "it is a keyword of Python"
    if answer in sys.stdlib_module_names:
        return "it is a module of Python's own, which would hide one or the other"
    if util.find_spec(answer) is not None:
        return "a package of this name is installed, which would hide one or the other"
    return None


def _image(answer: str, answers: Mapping[str, str]) -> str | None:
    if not _IMAGE.fullmatch(answer):
        return "it is no image; it looks like name:tag or registry.example.com/team/name:tag"
    if len(answer.partition("@")[0].rpartition(":")[0]) > _LONGEST_IMAGE_NAME:
        return f"its name is longer than {_LONGEST_IMAGE_NAME} characters"
    return None


def _port(answer: str, answers: Mapping[str, str]) -> str | None:
    number = int(answer) if answer.isascii() and answer.isdecimal() and len(answer) < 6 else 0
    return None if 0 < number < 65536 else "a port is a number from 1 to 65535"


def _server(answer: str, answers: Mapping[str, str]) -> str | None:
    if answer and not (_PROGRAM.fullmatch(answer) and len(answer) <= _LONGEST_PROGRAM):
        return "it is the name of a program, without a folder and without arguments"
    return None


def _server_arguments(answer: str, answers: Mapping[str, str]) -> str | None:
    if "{port}" not in answer and "{config}" not in answer:
        return "{port} has to stand where the server is told its port, or {config} for a file"
    return _words(answer, answers)


def _server_configuration(answer: str, answers: Mapping[str, str]) -> str | None:
    if ("{config}" in answers["server_arguments"]) != bool(answer):
        return "give it where server_arguments has {config}, and only there"
    if answer and "{port}" not in answer + answers["server_arguments"]:
        return "{port} has to stand where the server is told its port"
    return None


def _words(answer: str, answers: Mapping[str, str]) -> str | None:
    try:
        found = shlex.split(answer)
    except ValueError as error:
        return f"it is no command line: {error}"
    return None if found else "it is empty"


def _readiness(answer: str, answers: Mapping[str, str]) -> str | None:
    return None if answer in READINESS else f"it is one of {', '.join(READINESS)}"


def _http_path(answer: str, answers: Mapping[str, str]) -> str | None:
    return None if _PATH.fullmatch(answer) else "a path begins with '/' and has no spaces"


def _log_line(answer: str, answers: Mapping[str, str]) -> str | None:
    if not answer:
        return "it is empty, which is found in every line"
    try:
        re.compile(answer)
    except re.error as error:
        return f"it is no regular expression: {error}"
    return None


def _client(answer: str, answers: Mapping[str, str]) -> str | None:
    if not _REQUIREMENT.fullmatch(answer):
        return "it is a library with the oldest version that will do, such as pymemcache>=4.0"
    return None


def _client_opens(answer: str, answers: Mapping[str, str]) -> str | None:
    names = _names_in(answer)
    if names is None:
        return "it is no expression in Python"
    if len([name for name in names if name not in _KNOWN_TO_CLIENTS]) != 1:
        return (
            "it refers to one module, which it is the client library's, and else to "
            f"{', '.join(_KNOWN_TO_CLIENTS)} only"
        )
    if "timeout" not in names:
        return "it has to be given timeout, so that a question to a silent service ends"
    return None


def _client_asks(answer: str, answers: Mapping[str, str]) -> str | None:
    if _names_in(answer) != {"client"}:
        return "it is an expression in Python that refers to client, and to nothing else"
    return None


def _names_in(expression: str) -> set[str] | None:
    try:
        tree = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError):
        return None
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _author(answer: str, answers: Mapping[str, str]) -> str | None:
    return None if answer.strip() else "it is empty"


def _license(answer: str, answers: Mapping[str, str]) -> str | None:
    return None if answer in LICENSES else f"it is one of {', '.join(LICENSES)}"


_CHECKS: Mapping[str, Callable[[str, Mapping[str, str]], str | None]] = {
    "service": _service,
    "image": _image,
    "port": _port,
    "server": _server,
    "server_arguments": _server_arguments,
    "server_configuration": _server_configuration,
    "server_version": _words,
    "readiness": _readiness,
    "http_path": _http_path,
    "command": _words,
    "log_line": _log_line,
    "client": _client,
    "client_opens": _client_opens,
    "client_asks": _client_asks,
    "package": _package,
    "author": _author,
    "license": _license,
}


def main() -> int:
    """Check the answers that cookiecutter has put in here."""
    given = json.loads(r"""{{ cookiecutter | jsonify }}""")
    answers = {question: str(given[question]) for question in _CHECKS}
    found = list(problems(answers))
    for each in found:
        sys.stderr.write(f"{each}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
