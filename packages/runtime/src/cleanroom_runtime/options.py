"""Checks of declared options, for plugins whose options have tables and lists in them."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from cleanroom import ValidationError
from cleanroom._errors import nearest

__all__ = ["sequence", "table", "texts", "within"]


def table(option: str, value: object, keys: Collection[str] | None = None) -> dict[str, Any]:
    """Return a copy of a table.

    Args:
        option: What to call it in an error.
        value: What was declared.
        keys: The keys it may have; any text, where they are not given.

    Raises:
        ValidationError: It is no table, or has another key.
    """
    if not isinstance(value, Mapping):
        raise ValidationError(f"{option} is no table", hint=f"write {option} = {{ key = value }}")
    copied = dict(cast("Mapping[object, Any]", value))
    for key in copied:
        if not isinstance(key, str):
            raise ValidationError(f"{option} has the key {key!r}", hint="keys are texts")
        if keys is not None and key not in keys:
            raise ValidationError(f"{option}.{key}: unknown key", hint=nearest(key, keys))
    return cast("dict[str, Any]", copied)


@contextmanager
def within(option: str) -> Generator[None]:
    """Say of which table a refused value is: `timeout is '1'` becomes `health.timeout is '1'`.

    Args:
        option: What to call the table in an error.

    Raises:
        ValidationError: What was done within has raised one, whose message begins with a key.
    """
    try:
        yield
    except ValidationError as exc:
        raise ValidationError(f"{option}.{exc.message}", hint=exc.hint) from exc


def sequence(option: str, value: object) -> list[object]:
    """Return a list; a single text stands for a list of one.

    Args:
        option: What to call it in an error.
        value: What was declared.

    Raises:
        ValidationError: It is no list.
    """
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise ValidationError(f"{option} is {value!r}", hint=f"write {option} = [...]")
    return cast("list[object]", value)


def texts(option: str, value: object) -> list[str]:
    """Return a list of texts; a single text stands for a list of one.

    Args:
        option: What to call it in an error.
        value: What was declared.

    Raises:
        ValidationError: It is no list of texts.
    """
    listed = sequence(option, value)
    if not all(isinstance(each, str) for each in listed):
        raise ValidationError(f"{option} is {value!r}", hint=f'write {option} = ["...", "..."]')
    return cast("list[str]", listed)
