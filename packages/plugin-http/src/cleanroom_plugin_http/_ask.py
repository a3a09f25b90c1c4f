"""Asking a service one question, within a bound, and saying in words how it did not answer."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cleanroom import ServiceError
from cleanroom_plugin_http._answer import Answer
from cleanroom_runtime import NotReturnedError, call_within

if TYPE_CHECKING:
    import requests

MOST_BYTES = 4 * 1024 * 1024
"""Of an answer; what comes behind is not read."""
_CHUNK = 64 * 1024
_OTHER_PATH = "ask for another path, or do not follow: follow_redirects=False"


@dataclass(frozen=True, repr=False)
class Question:
    """A `GET` request.

    Attributes:
        url: Base URL of the service.
        path: What is asked for.
        headers: Sent along.
        follow_redirects: Whether the answer is the one that a redirect leads to.
        verify: Path of the certificates to trust, or whether to check the server's at all.
        hide: Removes secrets from a text.
    """

    url: str
    path: str
    headers: Mapping[str, str]
    follow_redirects: bool
    verify: str | bool
    hide: Callable[[str], str]

    def __str__(self) -> str:
        return f"GET {self.url.rstrip('/')}{self.path}"

    def __repr__(self) -> str:
        """Show no secret: a traceback shows the arguments of functions."""
        return f"<{self.hide(str(self))}>"


def ask(question: Question, seconds: float) -> Answer:
    """Return the answer, read as a whole.

    Raises:
        ServiceError: There was none in time, however slowly it came, or none that is HTTP.
    """

    def answer() -> requests.Response:
        return _answer(question, time.monotonic() + seconds, seconds)

    try:
        # A timeout of requests is for each piece of an answer, of which there may be many.
        return Answer(call_within(answer, seconds), question.hide)
    except NotReturnedError as exc:
        raise _too_slow(question, seconds) from exc
    except Exception as exc:  # noqa: BLE001 - raised in words
        raise _in_words(question, exc, seconds) from _alone(_root(exc))


def _answer(question: Question, deadline: float, seconds: float) -> requests.Response:
    from urllib3 import HTTPResponse

    from cleanroom_plugin_http._session import ServiceSession

    with (
        ServiceSession(
            question.url, headers=question.headers, verify=question.verify, timeout=seconds
        ) as session,
        session.get(
            question.path, allow_redirects=question.follow_redirects, stream=True
        ) as response,
    ):
        body = bytearray()
        for chunk in response.raw.stream(_CHUNK, decode_content=True):
            body += chunk
            if len(body) >= MOST_BYTES or time.monotonic() > deadline:
                break
    response.raw = HTTPResponse(io.BytesIO(bytes(body[:MOST_BYTES])), preload_content=False)
    response.content  # noqa: B018 - reads it, so that nothing is left open
    return response


def _too_slow(question: Question, seconds: float) -> ServiceError:
    return ServiceError(
        f"{question} had no whole answer within {seconds:g} s",
        hint="if the service is slow by nature, raise the timeout of its health check: "
        "with_health_check(..., timeout=...), or timeout in the table health",
    )


def _in_words(question: Question, exc: Exception, seconds: float) -> ServiceError:
    from requests import exceptions

    parts = urlsplit(question.url)
    place = f"{parts.hostname}:{parts.port or parts.scheme}"
    asked = getattr(getattr(exc, "request", None), "url", None) or question.url
    if urlsplit(asked)[:2] != parts[:2] and isinstance(exc, exceptions.ConnectionError):
        return ServiceError(
            f"{question} was redirected to {asked}, and that has failed: {_named(_root(exc))}",
            hint=_OTHER_PATH,
        )
    if isinstance(exc, exceptions.SSLError):
        return ServiceError(
            f"{question}: TLS with {place} failed: {_root(exc)}",
            hint="give the certificates to trust, with_tls(ca=...); they must name "
            f"{parts.hostname}. Or do not check them, with_tls(verify=False). A service without "
            "TLS needs no with_tls",
        )
    if isinstance(exc, exceptions.Timeout):
        return _too_slow(question, seconds)
    if isinstance(exc, exceptions.TooManyRedirects):
        return ServiceError(
            f"{question} leads from redirect to redirect: {exc}",
            hint=_OTHER_PATH,
        )
    root = _root(exc)
    if isinstance(root, ConnectionRefusedError):
        return ServiceError(
            f"nothing listens at {place} ({question}: connection refused)",
            hint="the service has to listen there: {port} and {host} in its command or env say "
            "where; in a container it is the argument port; of one that somebody else runs, url",
        )
    if isinstance(exc, exceptions.ConnectionError | exceptions.ChunkedEncodingError):
        return ServiceError(
            f"{question}: the connection was closed without an answer in HTTP: {_named(root)}",
            hint="the service may speak HTTPS, for which there is with_tls, or another protocol",
        )
    return ServiceError(f"{question} failed: {_named(exc)}")


def _root(exc: BaseException) -> BaseException:
    """What the libraries in between have wrapped, in one of the ways they have."""
    while type(exc).__module__.startswith(("requests.", "urllib3.")):
        wrapped = [getattr(exc, "reason", None), *exc.args, exc.__cause__, exc.__context__]
        inner = next((each for each in wrapped if isinstance(each, BaseException)), None)
        if inner is None:
            break
        exc = inner
    return exc


def _alone(exc: BaseException) -> BaseException:
    """Take the frames of libraries off: pytest shows their arguments, headers among them."""
    exc.__cause__ = exc.__context__ = None
    return exc.with_traceback(None)


def _named(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}".rstrip(": ")
