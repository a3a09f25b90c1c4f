"""Finding a secret in a text, in whichever way the one who wrote it had to write it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from cleanroom._secrets import HIDDEN, scrub

_NEVER_ESCAPED = re.compile(r"[A-Za-z0-9_.~-]")  # unreserved in RFC 3986, and plain elsewhere
_SOME = r"\\{1,8}"  # backslashes: texts are written into texts, but not for ever
_LETTERS = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}
_ELSEWHERE = {" ": r"\+", "'": "''|&apos;"}
"""How forms write a character in a URL, SQL in a string, and XML."""


def hide_all(secrets: Iterable[str]) -> Callable[[str], str]:
    """Return what removes secrets from a text, and what a URL in it shows.

    It finds them as they are, and as JSON, HTML, SQL, URLs and Python's `repr` write them.
    """
    # The longest first, as one may be a part of another.
    ordered = sorted({*filter(None, secrets)}, key=lambda secret: (-len(secret), secret))
    patterns = [re.compile("".join(map(_spelled, secret))) for secret in ordered]

    def hide(text: str) -> str:
        for pattern in patterns:
            text = pattern.sub(HIDDEN, text)
        return scrub(text)

    return hide


def _spelled(character: str) -> str:
    """A pattern of all the ways in which a character is written."""
    if _NEVER_ESCAPED.fullmatch(character):
        return re.escape(character)
    from html.entities import codepoint2name  # Here, as it is large and seldom needed.

    code = ord(character)
    units = character.encode("utf-16-be", "surrogatepass").hex()
    escaped = rf"{_SOME}u".join(units[start : start + 4] for start in range(0, len(units), 4))
    utf_8 = character.encode(errors="surrogatepass").hex("%")
    ways = [
        rf"\\{{0,8}}{re.escape(character)}",
        rf"(?i:{_SOME}u{escaped}|{_SOME}x{code:02x}|{_SOME}U{code:08x}|%{utf_8})",
        rf"(?i:&#0{{0,4}}{code};|&#x0{{0,4}}{code:x};)",
        rf"{_SOME}{_LETTERS.get(character, '')}" if character in _LETTERS else "",
        rf"&{codepoint2name.get(code)};" if code in codepoint2name else "",
        _ELSEWHERE.get(character, ""),
    ]
    return f"(?:{'|'.join(filter(None, ways))})"
