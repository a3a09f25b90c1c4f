"""Keeping secrets out of everything a person might read."""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN = "***"

# Compiled when first used, and then kept by `re`.
_HIDDEN_KEY = r"(?i)pass(word|wd|phrase)?$|secret|token|api_?key|private_?key"
_USERINFO = r"(?i)(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^/@:\s]*):(?P<password>[^/@\s]+)@"
_PARAMETER = r"(?i)(?P<key>[?&\s]password=)(?P<value>[^&\s]+)"


def is_secret_key(key: str) -> bool:
    """Whether a setting of this name holds a secret (`password`, `API_KEY`, `auth_token`...)."""
    return re.search(_HIDDEN_KEY, key) is not None


def hide_secrets(key: str, value: str) -> str:
    """Return `value` fit to be shown: hidden if `key` names a secret, else with URLs cleaned."""
    return HIDDEN if is_secret_key(key) else scrub(value)


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` without the passwords of URLs in it and without any of `secrets`."""
    text = re.sub(_USERINFO, rf"\g<scheme>\g<user>:{HIDDEN}@", text)
    text = re.sub(_PARAMETER, rf"\g<key>{HIDDEN}", text)
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text
