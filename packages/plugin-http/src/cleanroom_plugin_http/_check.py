"""Checks of what users tell the plugin: each names the argument and the value it refuses."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from cleanroom import ServiceHandle, ValidationError
from cleanroom_runtime.options import table

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PLACEHOLDER = re.compile(r"\{(?P<kept>\{(?:port|host)\})\}|\{(?P<key>port|host)\}")
_HEALTH_KEYS = (
    "path", "expect", "expected", "matches", "timeout", "headers", "follow_redirects",
)  # fmt: skip


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return a text with `{port}` and `{host}` filled in; other braces stay as they are.

    In a second pair of braces they stand for themselves.
    """
    return _PLACEHOLDER.sub(lambda match: match["kept"] or values[match["key"]], text)


def container_port(value: object, image: str | None) -> int | None:
    """A TCP port, which an image needs; also one written as text, as in configuration."""
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if value is None and image is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
        raise ValidationError(
            f"port is {value!r}",
            hint="it is the port, from 1 to 65535, that the service listens on in its container",
        )
    return value


def command(value: object) -> tuple[str, ...]:
    """Program and arguments."""
    if value is None:
        return ()
    given = cast("list[object]", value) if isinstance(value, list | tuple) else []
    texts = [each for each in given if isinstance(each, str) and "\0" not in each]
    if not texts or len(texts) != len(given) or not texts[0]:
        raise ValidationError(
            f"command is {value!r}", hint='it is a list of texts, such as ["python", "-m", "shop"]'
        )
    return tuple(texts)


def env(value: object) -> dict[str, str]:
    """Environment variables. Values are never shown."""
    if not isinstance(value, Mapping):
        raise ValidationError("env is no table", hint="it has names and values of variables")
    checked: dict[str, str] = {}
    for key, text in cast("Mapping[object, object]", value).items():
        if not isinstance(key, str) or not _VARIABLE.fullmatch(key):
            raise ValidationError(f"env has the key {key!r}", hint="it is no name of a variable")
        if not isinstance(text, str) or "\0" in text:
            raise ValidationError(f"env has no text for {key}", hint="put it in quotes")
        checked[key] = text
    return checked


def cwd(value: str | os.PathLike[str] | None) -> Path | None:
    """A folder that exists."""
    if value is None:
        return None
    folder = Path(value).absolute()
    if not folder.is_dir():
        raise ValidationError(f"cwd is {os.fspath(value)!r}", hint="there is no such folder")
    return folder


def path(value: object) -> str:
    """An absolute path, with query if need be."""
    if not isinstance(value, str) or not value.startswith("/") or re.search(r"[\s#]", value):
        raise ValidationError(f"path is {value!r}", hint="it begins with '/' and has no spaces")
    return value


def timeout(value: object) -> float:
    """A positive number of seconds."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
    if not 0 < number < float("inf"):
        raise ValidationError(f"timeout is {value!r}", hint="it is a number of seconds above 0")
    return float(number)


def headers(value: object) -> dict[str, str]:
    """Names and values of headers. Values are never shown."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValidationError("headers is no table", hint="it has names and values of headers")
    checked: dict[str, str] = {}
    for key, text in cast("Mapping[object, object]", value).items():
        if not isinstance(key, str) or not _HEADER.fullmatch(key):
            raise ValidationError(f"headers has the key {key!r}", hint="it is no name of a header")
        if not isinstance(text, str) or re.search(r"[\r\n]", text):
            raise ValidationError(f"headers has no text of one line for {key}")
        if any(ord(character) > 0xFF for character in text):  # RFC 9110, 5.5
            hint = "encode it as the service wants it: a header has characters of Latin-1 at most"
            raise ValidationError(f"headers has other characters for {key}", hint=hint)
        checked[key] = text
    return checked


def validator(value: Callable[[ServiceHandle], object]) -> Callable[[ServiceHandle], object]:
    """Something to call."""
    if not callable(value):
        raise ValidationError(f"validator is {value!r}", hint="it is a callable")
    return value


def health_options(value: object) -> dict[str, Any]:
    """What configuration says of the health check, as arguments of `with_health_check`."""
    options = table("health", value, _HEALTH_KEYS)
    given = [key for key in ("expect", "expected", "matches") if key in options]
    if len(given) > 1:
        raise ValidationError(f"health has {' and '.join(given)}", hint="give one of them")
    expected = options.pop(given[0]) if given else None
    return {**options, "expected": _pattern(expected) if given == ["matches"] else expected}


def _pattern(value: object) -> re.Pattern[str]:
    try:
        return re.compile(value if isinstance(value, str) else "[")
    except re.error as exc:
        raise ValidationError(
            f"health.matches is {value!r}", hint=f"it is no regular expression: {exc}"
        ) from exc


def flag(argument: str, value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValidationError(f"{argument} is {value!r}", hint="it is true or false")
    return value


def address(url: str) -> dict[str, str]:
    """Host and port of a base URL."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"host": parts.hostname or "", "port": str(port), "version": "unknown"}
