"""What of the headers of a request must not be shown."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from http.cookies import CookieError, SimpleCookie

_HARMLESS = {"accept", "accept-encoding", "accept-language", "content-type", "host", "user-agent"}


def secrets_of(headers: Mapping[str, str]) -> Iterator[str]:
    """Return the values of headers, and what is secret in them and may be shown alone."""
    for name, value in headers.items():
        if name.lower() in _HARMLESS:
            continue
        yield value
        scheme, _, credentials = value.partition(" ")  # as in RFC 9110, 11.4
        yield credentials
        if scheme.lower() == "basic":
            yield _password_of(credentials)
        if name.lower() == "cookie":
            yield from _values_of(value)


def _password_of(credentials: str) -> str:
    """Return the password of basic authentication (RFC 7617)."""
    try:
        return base64.b64decode(credentials).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


def _values_of(cookies: str) -> list[str]:
    try:
        return [morsel.value for morsel in SimpleCookie(cookies).values()]
    except CookieError:
        return []
