"""Keeping secrets out of everything a person might read."""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN = "***"

_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|api_?key|private_?key", re.IGNORECASE
)
_USERINFO = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^/@:\s]*):(?P<password>[^/@\s]+)@", re.I
)
_PASSWORD_PARAMETER = re.compile(r"(?P<key>[?&\s]password=)(?P<value>[^&\s]+)", re.I)


def is_secret_key(key: str) -> bool:
    """Whether a setting of this name holds a secret (`password`, `API_KEY`, `auth_token`...)."""
    return _SECRET_KEY.search(key) is not None


def hide_secrets(key: str, value: str) -> str:
    """Return `value` fit to be shown: hidden if `key` names a secret, else with URLs cleaned."""
    return HIDDEN if is_secret_key(key) else scrub(value)


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` without the passwords of URLs in it and without any of `secrets`."""
    text = _USERINFO.sub(rf"\g<scheme>\g<user>:{HIDDEN}@", text)
    text = _PASSWORD_PARAMETER.sub(rf"\g<key>{HIDDEN}", text)
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text
