"""Checks of what users tell the plugin: each names the argument and the value it refuses."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from cleanroom import ServiceHandle, ValidationError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLACEHOLDER = re.compile(r"\{(port|host)\}")
_HEALTH_KEYS = ("path", "expect", "expected", "timeout", "headers", "follow_redirects")


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return a text with `{port}` and `{host}` filled in; other braces stay as they are."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


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


def command(value: Sequence[str] | None) -> tuple[str, ...]:
    """Program and arguments."""
    if value is None:
        return ()
    texts = not isinstance(value, str) and all(isinstance(each, str) for each in value)
    if not texts or not value or not value[0]:
        raise ValidationError(
            f"command is {value!r}", hint='it is a list of texts, such as ["python", "-m", "shop"]'
        )
    return tuple(value)


def env(value: Mapping[str, str]) -> dict[str, str]:
    """Environment variables."""
    given = cast("Mapping[object, object]", value)
    for key, text in given.items():
        if not isinstance(key, str) or not _VARIABLE.fullmatch(key):
            raise ValidationError(f"env has the key {key!r}", hint="it is no name of a variable")
        if not isinstance(text, str) or "\0" in text:
            raise ValidationError(f"env has no text for {key}")
    return dict(value)


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


def headers(value: Mapping[str, str] | None) -> dict[str, str]:
    """Names and values of headers. Values are never shown."""
    for key, text in (value or {}).items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", str(key)) or not isinstance(text, str):
            raise ValidationError(f"headers has the key {key!r}", hint="it is no name of a header")
        if re.search(r"[\r\n]", text):
            raise ValidationError(f"headers has a line break in the value of {key!r}")
    return dict(value or {})


def validator(value: Callable[[ServiceHandle], object]) -> Callable[[ServiceHandle], object]:
    """Something to call."""
    if not callable(value):
        raise ValidationError(f"validator is {value!r}", hint="it is a callable")
    return value


def ca(value: str | os.PathLike[str] | None) -> str:
    """A file or folder with certificates; empty where none was given."""
    if value is None:
        return ""
    if not Path(value).exists():
        raise ValidationError(f"ca is {os.fspath(value)!r}", hint="there is no such file")
    return str(Path(value).absolute())


def health_options(value: Mapping[str, object]) -> dict[str, Any]:
    """What configuration says of the health check, as arguments of `with_health_check`."""
    if not isinstance(value, Mapping):
        raise ValidationError(f"health is {value!r}", hint="it is a table")
    for key in value:
        if key not in _HEALTH_KEYS:
            raise ValidationError(
                f"health has the key {key!r}", hint=f"its keys are {', '.join(_HEALTH_KEYS)}"
            )
    options = dict(cast("Mapping[str, Any]", value))
    if "expect" in options:
        options["expected"] = options.pop("expect")
    return options


def address(url: str) -> dict[str, str]:
    """Host and port of a base URL."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"host": parts.hostname or "", "port": str(port), "version": "unknown"}
