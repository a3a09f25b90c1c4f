"""What users say of a container, checked: each error names the argument and the value.

Values that may be secret are not shown: of environment variables, of files, of accounts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

from cleanroom import ValidationError
from cleanroom_runtime import _check
from cleanroom_runtime._specs import PullPolicy
from cleanroom_runtime._waits import CheckWait, CommandWait, HttpWait, LogWait, PortWait, Wait
from cleanroom_runtime.options import table

_SIZE = re.compile(r"(\d+)\s*([kmgt]?)i?b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_KINDS_OF_WAIT = ("port", "log", "log_matches", "http", "command", "check")


def ports(value: object) -> tuple[int, ...]:
    """One TCP port or several, each once."""
    listed = cast("Sequence[object]", value if isinstance(value, list | tuple) else (value,))
    found = tuple(_check.port("ports", each) for each in listed)
    if not found or len(set(found)) < len(found):
        raise ValidationError(
            f"ports is {value!r}",
            hint="it lists the ports that are listened on in the container, each once, the main "
            "one first",
        )
    return found


def env(value: object) -> dict[str, str]:
    """Environment variables."""
    checked: dict[str, str] = {}
    for key, text in table("env", value).items():
        _check.variable("key in env", key)
        if not isinstance(text, str) or "\0" in text:
            raise ValidationError(f"env has no text for {key}", hint="put it in quotes")
        checked[key] = text
    return checked


def files(value: object) -> dict[str, bytes | Path]:
    """Files by their paths inside: content, or a local file or folder."""
    return {inside(path): content(path, each) for path, each in table("files", value).items()}


def declared_files(value: object, folder: Path) -> dict[str, object]:
    """The same as configuration says it, where `{ path = "app.conf" }` names a local file."""
    return {
        path: folder / _path_in(f'files."{path}"', each) if isinstance(each, Mapping) else each
        for path, each in table("files", value).items()
    }


def _path_in(option: str, value: object) -> str:
    return _text(f"{option}.path", table(option, value, ["path"]).get("path"))


def inside(value: object) -> str:
    """An absolute path in a container, which is not its root."""
    if not isinstance(value, str) or not re.fullmatch(r"/[^\0]*[^/\0]", value):
        raise ValidationError(
            f"path is {value!r}", hint="it is the absolute path of a file inside the container"
        )
    return value


def content(path: str, value: object) -> bytes | Path:
    """What a file has: bytes, text, or that of a local file or folder."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, os.PathLike):
        raise ValidationError(
            f"content of {path} is of type {type(value).__name__}",
            hint="it is bytes, a text, or the Path of a local file or folder",
        )
    local = Path(cast("os.PathLike[str]", value)).absolute()
    if not local.exists():
        raise ValidationError(f"content of {path} is {local}", hint="there is no such file")
    return local


def command(argument: str, value: object) -> tuple[str, ...]:
    """Arguments, or program and arguments; they are not shown, as they may have a secret."""
    given = cast("Sequence[object]", value if isinstance(value, list | tuple) else ())
    texts = tuple(each for each in given if isinstance(each, str) and "\0" not in each)
    if not texts or len(texts) != len(given):
        shown = repr(value) if isinstance(value, str) else f"of type {type(value).__name__}"
        raise ValidationError(
            f"{argument} is {shown}",
            hint='it is a list of texts that is not empty, such as ["serve", "--verbose"]',
        )
    return texts


def size(argument: str, value: object) -> int | None:
    """A number of bytes, also as a text with a unit: `"256m"`."""
    if value is None:
        return None
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    number = int(match[1]) * _UNITS[match[2].lower()] if match else value
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValidationError(
            f"{argument} is {value!r}",
            hint="it is a number of bytes, or a text such as '256m' or '1g'",
        )
    return number


def cpus(value: object) -> float | None:
    """A number of processors, of which a fraction will do."""
    if value is None:
        return None
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
    if not 0.01 <= number < float("inf"):
        raise ValidationError(f"cpus is {value!r}", hint="it is a number such as 0.5 or 2")
    return float(number)


def tmpfs(value: object) -> dict[str, str]:
    """Paths inside to keep in memory, with mount options; or a list of paths alone."""
    if isinstance(value, list | tuple):
        value = dict.fromkeys(cast("Sequence[object]", value), "")
    checked: dict[str, str] = {}
    for path, options in table("tmpfs", value).items():
        if not isinstance(options, str):
            raise ValidationError(
                f"tmpfs has {options!r} for {path}", hint="options are a text such as 'size=64m'"
            )
        checked[inside(path)] = options
    return checked


def user(value: object) -> str | None:
    """A user by name or number, with a group if need be."""
    if value is not None and not (
        isinstance(value, str) and re.fullmatch(r"[^\s:]+(:\S+)?", value)
    ):
        raise ValidationError(
            f"user is {value!r}", hint="it is a text such as 'nobody', '1000' or '1000:1000'"
        )
    return value


def pull(value: object) -> PullPolicy:
    """When to pull the image."""
    for policy in get_args(PullPolicy):
        if value == policy:
            known: PullPolicy = policy
            return known
    raise ValidationError(
        f"pull is {value!r}", hint=f"it is one of {', '.join(get_args(PullPolicy))}"
    )


def registry(value: object) -> tuple[str, str] | None:
    """User name and password for a registry."""
    if value is None:
        return None
    account = table("registry", value, ["username", "password"])
    for key in ("username", "password"):
        if not isinstance(account.get(key), str) or not account[key]:
            raise ValidationError(
                f"registry has no text for {key}", hint="it has username and password"
            )
    return str(account["username"]), str(account["password"])


def scheme(value: object) -> str:
    """The scheme of a URL."""
    if not isinstance(value, str) or not re.fullmatch(r"[a-z][a-z0-9+.-]*", value):
        raise ValidationError(f"scheme is {value!r}", hint="it is a text such as 'http'")
    return value


def waits(value: object, known: Sequence[int]) -> tuple[Wait, ...]:
    """What is waited for: a table, or a list of them."""
    listed = cast("Sequence[object]", value if isinstance(value, list | tuple) else (value,))
    return tuple(wait(table("wait", each, (*_kinds(each), "status")), known) for each in listed)


def wait(options: Mapping[str, object], known: Sequence[int]) -> Wait:
    """One thing that is waited for.

    Args:
        options: As `ContainerPlugin.with_wait` takes them; `None` is as good as nothing.
        known: The ports of the container.
    """
    given = {key: value for key, value in options.items() if value is not None}
    kinds = [key for key in _KINDS_OF_WAIT if key in given]
    if "http" in kinds and "port" in kinds:
        kinds.remove("port")
    if len(kinds) != 1 or ("status" in given and "http" not in given):
        raise ValidationError(
            f"wait has {' and '.join(given) or 'nothing'}",
            hint=f"give one of {', '.join(_kinds(options))}; beside http, port and status too",
        )
    value = given[kinds[0]]
    if kinds == ["port"]:
        return PortWait(_known_port(value, known))
    if kinds == ["log"]:
        return LogWait(_text("log in wait", value))
    if kinds == ["log_matches"]:
        return LogWait(pattern=_pattern(value))
    if kinds == ["http"]:
        port = _known_port(given.get("port", known[0]), known)
        return HttpWait(_path(value), port, _status(given.get("status")))
    if kinds == ["command"]:
        return CommandWait(command("command in wait", value))
    if not callable(value):
        raise ValidationError(f"check in wait is {value!r}", hint="it is a callable")
    return CheckWait(value)


def _kinds(options: object) -> list[str]:
    """What can be waited for: a `check` where one may be given, which a file cannot do."""
    given = isinstance(options, Mapping) and "check" in options
    return [kind for kind in _KINDS_OF_WAIT if given or kind != "check"]


def _known_port(value: object, known: Sequence[int]) -> int:
    port = _check.port("port in wait", value)
    if port not in known:
        listed = ", ".join(map(str, known))
        raise ValidationError(f"port in wait is {port}", hint=f"it is none of ports: {listed}")
    return port


def _text(argument: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValidationError(f"{argument} is {value!r}", hint="it is a text that is not empty")
    return value


def _pattern(value: object) -> re.Pattern[str]:
    if isinstance(value, re.Pattern):
        return cast("re.Pattern[str]", value)
    try:
        return re.compile(_text("log_matches in wait", value), re.MULTILINE)
    except re.error as exc:
        raise ValidationError(
            f"log_matches in wait is {value!r}", hint=f"it is no regular expression: {exc}"
        ) from exc


def _path(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"/[^\s#]*", value):
        raise ValidationError(
            f"http in wait is {value!r}", hint="it is a path that begins with '/', such as '/ready'"
        )
    return value


def _status(value: object) -> int | None:
    if value is not None and (
        not isinstance(value, int) or isinstance(value, bool) or not 100 <= value <= 599
    ):
        raise ValidationError(f"status in wait is {value!r}", hint="it is from 100 to 599")
    return value
