"""Checks of what users tell the plugin: each names the argument and the value it refuses."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import TypeGuard

from cleanroom import ValidationError

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]*")
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_REFUSED_BY_INITDB = frozenset("\"$'\\")
"""Characters that no owner of an extension may have, and the superuser owns one from the start."""

LONGEST_IDENTIFIER = 63
"""Bytes of a name in the server."""
LONGEST_DATABASE_NAME = 40
"""Characters, so that with what is added for isolated databases it stays below that."""

_OWN_SETTINGS = ("port", "listen_addresses", "unix_socket_directories", "data_directory")


def database_name(value: object) -> str:
    """A letter or `_`, then letters, digits, `_`, `$` and `-`; not a name the server uses."""
    if not _is_identifier(value, LONGEST_DATABASE_NAME):
        raise ValidationError(
            f"database_name is {value!r}",
            hint="it is a letter or '_' followed by letters, digits, '_', '$' or '-', at most "
            f"{LONGEST_DATABASE_NAME} characters in all",
        )
    if value in ("template0", "template1", "postgres") or value.startswith("cleanroom_"):
        raise ValidationError(
            f"database_name is {value!r}", hint="that database is in use for other things"
        )
    return value


def username(value: object) -> str:
    """A role name that `initdb` accepts."""
    if (
        not _is_line(value)
        or len(value.encode()) > LONGEST_IDENTIFIER
        or value.startswith("pg_")
        or value in ("public", "none")
        or set(value) & _REFUSED_BY_INITDB
    ):
        raise ValidationError(
            f"username is {value!r}",
            hint=f"it is a text of one line, at most {LONGEST_IDENTIFIER} bytes long, without any "
            f"of {' '.join(sorted(_REFUSED_BY_INITDB))}, that does not begin with 'pg_' and is "
            "neither 'public' nor 'none'",
        )
    return value


def password(value: object) -> str:
    """Any text of one line that is not empty. The value is never shown."""
    if not _is_line(value):
        raise ValidationError(
            "password is empty, has several lines, or is no text",
            hint="give another one, or leave with_credentials out",
        )
    return value


def env(key: object, value: object, own: Mapping[str, str]) -> dict[str, str]:
    """An environment variable that is not set in another way."""
    if not isinstance(key, str) or not _VARIABLE.fullmatch(key):
        raise ValidationError(f"key is {key!r}", hint="it is the name of an environment variable")
    if key in own or (key.startswith("POSTGRES_") and key.endswith("_FILE")):
        raise ValidationError(
            f"key is {key!r}", hint=f"use {own.get(key, 'the value itself, not a file with it')}"
        )
    if not isinstance(value, str) or "\0" in value:
        raise ValidationError(f"value of {key} is {value!r}", hint="it is a text")
    if key == "POSTGRES_INITDB_ARGS":
        _check_quotes(key, value)
    return {key: value}


def _check_quotes(key: str, value: str) -> None:
    try:
        shlex.split(value)
    except ValueError as exc:
        raise ValidationError(
            f"value of {key} is {value!r}",
            hint=f"it is split as a shell would, which says: {exc}",
        ) from exc


def setting(key: object, value: object) -> dict[str, str]:
    """A server setting that is the user's to choose."""
    if not isinstance(key, str) or not _SETTING.fullmatch(key):
        raise ValidationError(f"key is {key!r}", hint="it is the name of a PostgreSQL setting")
    if key.lower() in _OWN_SETTINGS:
        raise ValidationError(f"key is {key!r}", hint="where the server listens is chosen for you")
    if not isinstance(value, str | int | float) or "\0" in str(value):
        raise ValidationError(f"value of {key} is {value!r}", hint="it is a text or a number")
    if isinstance(value, bool):
        return {key: "on" if value else "off"}
    return {key: str(value)}


def _is_line(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value) and not any(char in value for char in "\0\n\r")


def _is_identifier(value: object, longest: int) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= longest and bool(_IDENTIFIER.fullmatch(value))
