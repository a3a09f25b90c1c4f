"""Checks of what users tell the plugin: each names the argument and the value it refuses."""

from __future__ import annotations

import re

from cleanroom import ValidationError

_OWN_SETTINGS = (
    "port",
    "bind",
    "dir",
    "unixsocket",
    "daemonize",
    "requirepass",
    "user",
    "aclfile",
    "loadmodule",
)
_SETTING = re.compile(r"[a-z][a-z0-9-]*")
_USERNAME = re.compile(r"[^\s\0\"']+")
_NOT_IN_A_LINE = re.compile(r"[\n\r\0]")
_MOST_DATABASES = 1_000_000


def password(value: object) -> str:
    """Any text of one line that is not empty. The value is never shown."""
    if not isinstance(value, str) or not value or _NOT_IN_A_LINE.search(value):
        raise ValidationError(
            "password is empty, has several lines, or is no text",
            hint="give another one, or leave it out for a random one",
        )
    return value


def username(value: object) -> str:
    """The name of an ACL user other than the default one."""
    if not isinstance(value, str) or not _USERNAME.fullmatch(value) or value == "default":
        raise ValidationError(
            f"username is {value!r}",
            hint="it has no spaces or quotes; the user 'default' gets its password from "
            "with_password",
        )
    return value


def setting(key: object, value: object) -> dict[str, str]:
    """A server setting that is the user's to choose."""
    if not isinstance(key, str) or not _SETTING.fullmatch(key) or key in _OWN_SETTINGS:
        raise ValidationError(
            f"key is {key!r}",
            hint="it is the name of a Redis setting, other than those that say where the server "
            "listens, who may use it and what it loads",
        )
    if isinstance(value, bool):
        return {key: "yes" if value else "no"}
    text = line(f"value of {key}", str(value) if isinstance(value, int | float) else value)
    if key == "databases" and not (text.isdecimal() and 2 <= int(text) <= _MOST_DATABASES):
        raise ValidationError(
            f"value of databases is {text!r}", hint="there is one for the service and one a worker"
        )
    return {key: text}


def rules(value: object) -> str:
    """What an ACL user may do. The value is never shown: there may be passwords in it."""
    if not isinstance(value, str) or _NOT_IN_A_LINE.search(value):
        raise ValidationError("rules has several lines, or is no text")
    return value


def module(value: object) -> str:
    """The full path of a module."""
    if not line("path", value).startswith("/"):
        raise ValidationError(f"path is {value!r}", hint="it is the full path, where the server is")
    return str(value)


def line(argument: str, value: object) -> str:
    """A text of one line, which may be empty."""
    if not isinstance(value, str) or _NOT_IN_A_LINE.search(value):
        raise ValidationError(f"{argument} is {value!r}", hint="it is a text of one line")
    return value
