"""Keeping secrets out of what is said of a service, however they are written."""

from __future__ import annotations

import html
import json
import re
import time
import traceback
from urllib.parse import quote, quote_plus

import pytest

from cleanroom import ServiceError
from cleanroom_runtime import ContainerPlugin
from cleanroom_runtime._hiding import credentials_in, hide_secrets_in
from cleanroom_runtime._spellings import hide_all

SECRET = "a\"b\\c/d é&'<e>\n+🗝="


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        repr(SECRET),
        ascii(SECRET),
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        json.dumps(SECRET).replace("/", "\\/"),
        json.dumps(SECRET).replace("&", "\\u0026").replace("<", "\\u003C").replace("'", "\\u0027"),
        json.dumps(json.dumps(SECRET)),
        html.escape(SECRET),
        html.escape(SECRET, quote=False),
        html.escape(SECRET).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
        html.escape(SECRET).encode("ascii", "xmlcharrefreplace").decode(),
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        SECRET.replace("'", "''"),
    ],
)
def test_a_secret_is_found_however_it_is_written(written: str) -> None:
    """As it is, and as Python, JSON, HTML, SQL and URLs write it."""
    shown = hide_all([SECRET])(f"no ({written}) here")
    assert re.fullmatch(r"no \([\\\"']*\*\*\*[\\\"']*\) here", shown)


def test_looking_for_a_secret_takes_no_time() -> None:
    """However many backslashes a text has, of which some may belong to the secret."""
    text = "\\" * 64 * 1024
    began = time.monotonic()
    assert hide_all(['"hush"'])(text) == text
    assert time.monotonic() - began < 5


def test_nothing_else_is_hidden() -> None:
    """What only resembles a secret stays; of two secrets, the longer one is hidden as a whole."""
    hide = hide_all(["hush", "hush-hush", ""])
    assert hide("hush-hush, hush! HUSH h*sh") == "***, ***! HUSH h*sh"


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("http://token-of-mine@h/", ["token-of-mine", "dG9rZW4tb2YtbWluZTo="]),
        ("https://me:pass%2Fword@h", ["pass/word", "bWU6cGFzcy93b3Jk"]),
        ("http://a:%C3%BCber-all@h", ["über-all", "YTr8YmVyLWFsbA==", "YTrDvGJlci1hbGw="]),
        ("postgresql://me-myself@h/d", []),
        ("http://h/p@th", []),
        ("http://a@h", []),
        ("http://[h", []),
    ],
)
def test_credentials_in_urls(url: str, secrets: list[str]) -> None:
    """Passwords and tokens before a host are secret, and so is what is sent in HTTP for them."""
    assert [*credentials_in(url)] == secrets


class OddError(Exception):
    def __init__(self, first: str, second: str) -> None:
        self.second = second

    def __str__(self) -> str:
        return f"odd: {self.second}"


def hide_in(exc: BaseException) -> ServiceError:
    """Return an error of ours, raised from another one, with the secrets of a plugin hidden."""
    plugin = ContainerPlugin("api", "acme/api:1", 80, env={"API_TOKEN": "hush-hush"})
    try:
        try:
            raise exc
        except BaseException as caught:
            raise ServiceError(f"it raised {caught}") from caught
    except ServiceError as error:
        hide_secrets_in(error, plugin, {})
        return error


@pytest.mark.parametrize(
    ("exc", "said"),
    [
        (RuntimeError("no hush-hush"), "RuntimeError: no ***"),
        (OSError(2, "none", "/hush-hush"), "FileNotFoundError: [Errno 2] none: '/***'"),
        (KeyError("hush-hush"), "KeyError: '***'"),
        (OddError("a", "hush-hush"), "OddError: odd: ***"),
        (SystemExit("hush-hush"), "SystemExit: ***"),
        (UnicodeDecodeError("utf-8", b"hush-hush", 0, 1, "bad"), "UnicodeDecodeError: "),
    ],
)
def test_what_an_error_was_raised_from(exc: BaseException, said: str) -> None:
    """What others raised says the same without secrets, with its type and its traceback."""
    error = hide_in(exc)
    cause = error.__cause__
    shown = "".join(traceback.format_exception(error))
    assert said in shown
    assert "in hide_in" in shown.partition("direct cause")[0]
    for text in (shown, str(cause), repr(cause), repr(error)):
        assert "hush-hush" not in text
    assert isinstance(cause, type(exc))
    assert error.__suppress_context__


def test_what_is_raised_from_several() -> None:
    """All that has led to an error is without secrets: causes, contexts, groups and notes."""
    inner = ValueError("of hush-hush")
    inner.add_note("note hush-hush")
    inner.__context__ = KeyError("hush-hush")
    inner.__context__.__context__ = inner
    error = hide_in(ExceptionGroup("all hush-hush", [inner, TypeError("as it is")]))
    shown = "".join(traceback.format_exception(error))
    assert "hush-hush" not in shown
    for said in ("all ***", "ValueError: of ***", "note ***", "KeyError: '***'", "as it is"):
        assert said in shown


def test_what_tells_no_secret_is_left_as_it_is() -> None:
    """An exception without a secret in it stays the same object."""
    exc = RuntimeError("nothing")
    exc.__context__ = context = KeyError("nothing either")
    error = hide_in(exc)
    assert error.__cause__ is exc
    assert exc.__context__ is context
    group = ExceptionGroup("g", [exc])
    assert hide_in(group).__cause__ is group
