"""Checks of constructor arguments: each names the argument and the value it refuses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import get_args
from urllib.parse import urlsplit

from cleanroom import ValidationError
from cleanroom_runtime._specs import BackendChoice

_SERVICE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_CREDENTIALS = re.compile(r"//.*@", re.DOTALL)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def service_name(value: object) -> str:
    """A letter, then letters, digits, `-` and `_`; at most 63 characters."""
    if not isinstance(value, str) or not _SERVICE_NAME.fullmatch(value):
        raise ValidationError(
            f"name is {value!r}",
            hint="a service's name is a letter followed by letters, digits, '-' or '_', at most "
            "63 characters in all",
        )
    return value


def image(value: object) -> str | None:
    """An image reference, or none."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValidationError(f"image is {value!r}", hint="it is a text such as 'name:tag'")
    from cleanroom_runtime._image import parse_image  # slow, and many name no image

    parse_image(value)
    return value


def backend(value: object) -> BackendChoice:
    """One of the backends, or `auto`."""
    for choice in get_args(BackendChoice):
        if value == choice:
            known: BackendChoice = choice
            return known
    raise ValidationError(
        f"backend is {value!r}", hint=f"it is one of {', '.join(get_args(BackendChoice))}"
    )


def seconds(argument: str, value: object) -> float:
    """A positive, finite number of seconds."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
    if not 0 < number < float("inf"):
        raise ValidationError(f"{argument} is {value!r}", hint="it is a number of seconds above 0")
    return float(number)


def port(argument: str, value: object) -> int:
    """A TCP port."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
        raise ValidationError(f"{argument} is {value!r}", hint="a port is from 1 to 65535")
    return value


def url(argument: str, value: object, schemes: Sequence[str] = ()) -> str | None:
    """A URL with one of these schemes, if any are given, and with a host; or none."""
    if value is None:
        return None
    if not isinstance(value, str) or not _is_whole(value, schemes):
        example = schemes[0] if schemes else "scheme"
        shown = _CREDENTIALS.sub("//***@", value) if isinstance(value, str) else value
        raise ValidationError(
            f"{argument} is {shown!r}", hint=f"it is a URL such as {example}://user@host:port/name"
        )
    return value


def _is_whole(value: str, schemes: Sequence[str]) -> bool:
    try:
        parts = urlsplit(value)
        known = parts.scheme in schemes if schemes else bool(parts.scheme)
        return known and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port out of range, brackets that do not match
        return False


def variable(argument: str, value: object) -> str:
    """The name of an environment variable."""
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise ValidationError(
            f"{argument} is {value!r}",
            hint="the name of an environment variable has letters, digits and '_' only",
        )
    return value
