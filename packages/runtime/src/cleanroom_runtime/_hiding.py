"""Keeping the secrets of a service out of its logs and of the errors that it ends in."""

from __future__ import annotations

import base64
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from cleanroom import CleanroomError
from cleanroom._secrets import is_secret_key
from cleanroom_runtime._spellings import hide_all

if TYPE_CHECKING:
    from cleanroom_runtime._plugin import BasePlugin

Hide = Callable[[str], str]
"""Removes secrets from a text."""
SHORTEST_PIECE = 6
"""Characters of what is only a part of a setting and yet hidden: fewer occur by chance."""


def hider(plugin: BasePlugin, metadata: Mapping[str, str]) -> Hide:
    """Return what removes the secrets of a service from a text, however they are written in it.

    Logs and errors are without them anyway. A text that is cut for an error has to be without
    them before, as a part of one is not recognized any more.

    Args:
        plugin: The service's.
        metadata: That of the service's handle.
    """
    return hide_all(_secrets(plugin, metadata))


def hide_secrets_in(exc: BaseException, plugin: BasePlugin, metadata: Mapping[str, str]) -> None:
    """Remove the secrets of a service from an error of ours, and from those it was raised from.

    One that is not ours, and tells a secret, is replaced by one of its kind that does not.
    """
    _hide_in(exc, hider(plugin, metadata), {})


def remember_secrets(metadata: Mapping[str, str]) -> None:
    """Remember what is secret of a service, which another one may be given in its variables."""
    _remembered.update(secrets_in(metadata))


def secrets_in(metadata: Mapping[str, str]) -> Iterator[str]:
    """What is secret of a service by its metadata."""
    for key, value in metadata.items():
        if is_secret_key(key):
            yield value
        elif "://" in value:
            yield from credentials_in(value)


def credentials_in(url: str) -> Iterator[str]:
    """What is secret in a URL before its host, also as it is sent in HTTP (RFC 7617)."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not password and parts.scheme not in ("http", "https"):
        return  # it is a user's name that stands there
    pieces = [password or user]
    if user:
        both = f"{user}:{password}"
        sent = {both.encode(), both.encode("latin-1", errors="replace")}  # either is in use
        pieces += sorted(base64.b64encode(each).decode() for each in sent)
    yield from (piece for piece in pieces if len(piece) >= SHORTEST_PIECE)


_remembered: set[str] = set()


def _secrets(plugin: BasePlugin, metadata: Mapping[str, str]) -> Iterator[str]:
    """What must not be shown of a service."""
    given = [*plugin.variables().values()]
    handed_on = [each for each in tuple(_remembered) if any(each in value for value in given)]
    yield from (*secrets_in(metadata), *plugin.secrets(), *handed_on)


def _hide_in(exc: BaseException, hide: Hide, done: dict[int, BaseException]) -> BaseException:
    """Return an error without secrets: the same one, or what stands in for it."""
    if id(exc) in done:
        return done[id(exc)]
    shown: BaseException
    if isinstance(exc, CleanroomError):
        shown = _hide_in_ours(exc, hide)
    elif isinstance(exc, BaseExceptionGroup):
        shown = _hide_in_group(exc, hide, done)
    else:
        shown = _hide_in_other(exc, hide)
    done[id(exc)] = shown
    quiet = exc.__suppress_context__
    for link in ("__cause__", "__context__"):
        inner = getattr(exc, link)
        outer = inner and _hide_in(inner, hide, done)
        if getattr(shown, link) is not outer:
            setattr(shown, link, outer)
    if shown.__suppress_context__ != quiet:
        shown.__suppress_context__ = quiet
    return shown


def _hide_in_ours(exc: CleanroomError, hide: Hide) -> CleanroomError:
    exc.message = hide(exc.message)
    exc.args = (exc.message,)
    exc.hint = exc.hint and hide(exc.hint)
    exc.log_tail = exc.log_tail and hide(exc.log_tail)
    return exc


def _hide_in_group(
    exc: BaseExceptionGroup[BaseException], hide: Hide, done: dict[int, BaseException]
) -> BaseException:
    parts, message = [_hide_in(each, hide, done) for each in exc.exceptions], hide(exc.message)
    if message == exc.message and all(map(operator.is_, parts, exc.exceptions)):
        return exc
    return BaseExceptionGroup(message, parts).with_traceback(exc.__traceback__)


def _hide_in_other(exc: BaseException, hide: Hide) -> BaseException:
    """Return an error of the same kind and traceback, which cannot be made anew from its texts."""
    notes: list[str] = getattr(exc, "__notes__", [])
    texts = [str(exc), repr(exc), *notes]
    said, named, *hidden_notes = hidden = [*map(hide, texts)]
    if hidden == texts:
        return exc
    kind = type(exc)
    body = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__init__": lambda self: None,
        "__str__": lambda self: said,
        "__repr__": lambda self: named,
    }
    try:
        shown: BaseException = type(kind.__name__, (kind,), body)()
    except Exception:  # noqa: BLE001 - whatever keeps this kind from being derived from
        shown = type(kind.__name__, (Exception,), body)()
    for note in hidden_notes:
        shown.add_note(note)
    return shown.with_traceback(exc.__traceback__)
