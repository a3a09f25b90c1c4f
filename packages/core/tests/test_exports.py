from __future__ import annotations

import ast
import subprocess
import sys
import types
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import cleanroom
from cleanroom import config, discovery, hooks

SOURCES = Path(cleanroom.__file__).parent
MODULES = sorted(SOURCES.glob("*.py"))
"""The modules of the core. The conformance kit, the folder `testing`, is not part of it."""

VOCABULARY = ["_secrets.py", "_errors.py", "_protocol.py", "spans.py"]


def test_all_is_exactly_the_public_members_sorted() -> None:
    """`cleanroom.__all__` names what the package imports, at once or when used, sorted."""
    members = {
        alias.name: getattr(import_module(node.module), alias.name)
        for node in ast.walk(ast.parse((SOURCES / "__init__.py").read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cleanroom")
        for alias in node.names
        if not alias.name.startswith("_")
    }
    assert cleanroom.__all__ == sorted(members)
    assert {name: getattr(cleanroom, name) for name in cleanroom.__all__} == members


def test_no_other_attribute() -> None:
    """What the package does not have is an `AttributeError`, as in any other module."""
    with pytest.raises(AttributeError, match="module 'cleanroom' has no attribute 'Running'"):
        cleanroom.Running  # noqa: B018 - an attribute of a module that it imports when used


@pytest.mark.parametrize("module", [cleanroom.spans, config, discovery, hooks])
def test_public_modules_export_what_they_define(module: types.ModuleType) -> None:
    """A public module's `__all__` is sorted and names all it defines, hook specifications apart."""
    defined = [
        name
        for name, value in vars(module).items()
        if not name.startswith(("_", "cleanroom_"))
        and getattr(value, "__module__", module.__name__) == module.__name__
        and isinstance(value, type | types.FunctionType)
    ]
    markers = ["hookimpl", "hookspec"] if module is hooks else []
    assert module.__all__ == sorted([*defined, *markers])


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module == "cleanroom":
                yield from (f"cleanroom.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_core_imports_only_its_two_dependencies(path: Path) -> None:
    """The core imports the standard library, itself, pluggy and opentelemetry's API."""
    allowed = {*sys.stdlib_module_names, "cleanroom", "pluggy", "opentelemetry"}
    foreign = {name for name in imported(path) if name.split(".")[0] not in allowed}
    sdk = {name for name in imported(path) if name.startswith("opentelemetry.sdk")}
    assert not foreign | sdk


@pytest.mark.parametrize("name", VOCABULARY)
def test_vocabulary_imports_nothing_else_of_ours(name: str) -> None:
    """Protocol, errors and spans import no part of ours but each other and the scrubbing."""
    own = {f"cleanroom.{module.removesuffix('.py')}" for module in VOCABULARY}
    ours = {module for module in imported(SOURCES / name) if module.startswith("cleanroom")}
    assert ours <= own


@pytest.mark.parametrize("what", ["cleanroom", "cleanroom.discovery"])
def test_import_is_light(what: str) -> None:
    """`import cleanroom` imports nothing that is needed only once something starts."""
    heavy = (
        "opentelemetry pluggy pytest testcontainers docker psycopg redis requests"
        " importlib.metadata concurrent.futures asyncio logging tomllib difflib socket subprocess"
        " cleanroom._environment cleanroom._protocol cleanroom.spans contextvars dataclasses json"
    )
    code = f"""
import sys
before = set(sys.modules)
import {what}
print(*sorted((set(sys.modules) - before) & set({heavy.split()!r})))
"""
    done = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(SOURCES.parent)!r})\n{code}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []


def lines(paths: list[Path]) -> int:
    texts = [path.read_text("utf-8") for path in paths]
    return sum(1 for text in texts for line in text.splitlines() if line.strip())


def test_vocabulary_is_small() -> None:
    """Protocol, errors and spans have fewer than 500 lines together, blank lines counted."""
    texts = [(SOURCES / name).read_text("utf-8") for name in VOCABULARY if name != "_secrets.py"]
    assert sum(len(text.splitlines()) for text in texts) < 500
    assert lines([SOURCES / name for name in VOCABULARY]) < 500


def test_core_is_small() -> None:
    """The core without the kit has fewer than 1,200 lines, blank lines not counted."""
    assert lines(MODULES) < 1200


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_modules_are_short(path: Path) -> None:
    """No module has more than 300 lines."""
    assert len(path.read_text("utf-8").splitlines()) <= 300


def test_package_is_typed() -> None:
    """The package says that it is typed."""
    assert (SOURCES / "py.typed").exists()
