"""What the template needs to write answers as Python and TOML."""

from __future__ import annotations

import ast
import json
import shlex

from cookiecutter.utils import simple_filter  # type: ignore[import-untyped]

_KNOWN_TO_CLIENTS = {"host", "port", "url", "timeout"}


@simple_filter  # type: ignore[untyped-decorator]
def literal(text: str) -> str:
    """Return a text in double quotes, as Python and TOML read it."""
    return json.dumps(text, ensure_ascii=False)


@simple_filter  # type: ignore[untyped-decorator]
def text_block(text: str) -> str:
    """Return a text of several lines as it stands between three double quotes in Python."""
    escaped = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return "\\\n" + escaped.rstrip("\n") + "\n"


@simple_filter  # type: ignore[untyped-decorator]
def words(text: str, plain: bool = False) -> list[str]:
    """Return a command line as Python expressions, one a word.

    Args:
        text: The command line, quoted as for a shell.
        plain: Whether its placeholders are left to somebody else.
    """
    return [
        json.dumps(word, ensure_ascii=False) if plain else _expression(word)
        for word in shlex.split(text)
    ]


@simple_filter  # type: ignore[untyped-decorator]
def module_of(expression: str) -> str:
    """Return the one module that an expression for a client refers to."""
    names = (node.id for node in ast.walk(ast.parse(expression)) if isinstance(node, ast.Name))
    return next(name for name in names if name not in _KNOWN_TO_CLIENTS)


def _expression(word: str) -> str:
    alone = {
        "{port}": "str(workspace.port)",
        "{directory}": "str(workspace.directory)",
        "{config}": "str(configuration)",
    }
    if word in alone:
        return alone[word]
    text = json.dumps(word, ensure_ascii=False)
    if not any(placeholder in word for placeholder in alone):
        return text
    text = text.replace("{", "{{").replace("}", "}}")
    for placeholder, value in alone.items():
        inner = value.removeprefix("str(").removesuffix(")")
        text = text.replace("{" + placeholder + "}", "{" + inner + "}")
    return f"f{text}"
