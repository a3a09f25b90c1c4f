"""What of a request must not be shown."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlsplit

_NAMES = re.compile(
    r"(?i)auth(?!or(?!i[sz]))|cookie|token|key|secret|passw|session|credential|signature|jwt|[cx]srf"
)
"""Of what carries credentials, among headers and parameters; not of an author, or authority."""
_SHORTEST = 6
"""Characters of what is hidden: fewer occur by chance."""


def secrets_of(path: str, headers: Mapping[str, str]) -> Iterator[str]:
    """Return what is secret in a request, and what is secret in that and may be shown alone."""
    for secret in (*_in_parameters(path), *_in_headers(headers)):
        if len(secret) >= _SHORTEST:
            yield secret


def _in_parameters(path: str) -> Iterator[str]:
    for name, value in parse_qsl(urlsplit(path).query):
        if _NAMES.search(name):
            yield value


def _in_headers(headers: Mapping[str, str]) -> Iterator[str]:
    for name, value in headers.items():
        if not _NAMES.search(name):
            continue
        yield value
        scheme, _, credentials = value.partition(" ")  # as in RFC 9110, 11.4
        yield credentials.strip()
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
