"""Keeping secrets out of everything a person might read."""

from __future__ import annotations

import re

HIDDEN = "***"

# Compiled when first used, and then kept by `re`.
_HIDDEN_KEY = r"(?i)pass(word|wd|phrase)?$|secret|token|api_?key|private_?key"
_USERINFO = r"(?i)(https?://(?=[^/?#@:\s]+@)|://[^/@:\s]*:)[^/@\s]+@"
_PARAMETER = (
    r"(?i)(\spassword='?|[?&#][\w.-]*(?:pass(?:word|wd|phrase)?|secret|token|api[_-]?key|signature)=)"
    r"[^&\s\"'<>#]+(?<![.,:;)])"  # a sentence may go on behind it
)


def is_secret_key(key: str) -> bool:
    """Whether a setting of this name holds a secret (`password`, `API_KEY`, `auth_token`...)."""
    return re.search(_HIDDEN_KEY, key) is not None


def hide_secrets(key: str, value: str) -> str:
    """Return `value` fit to be shown: hidden if `key` names a secret, else with URLs cleaned."""
    return HIDDEN if is_secret_key(key) else scrub(value)


def scrub(text: str) -> str:
    """Return `text` without the passwords and tokens of URLs in it."""
    return re.sub(_PARAMETER, rf"\1{HIDDEN}", re.sub(_USERINFO, rf"\1{HIDDEN}@", text))
