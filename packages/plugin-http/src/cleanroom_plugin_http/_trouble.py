"""Saying in words how a service did not answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cleanroom import ServiceError
from cleanroom_plugin_http._answer import Answer, hops
from cleanroom_plugin_http._question import Question

if TYPE_CHECKING:
    import requests

_OTHER_PATH = "ask for another path, or do not follow: follow_redirects=False"
_MORE_TIME = (
    "if the service is slow by nature, raise the timeout of its health check: "
    "with_health_check(..., timeout=...), or timeout in the table health"
)


def too_slow(question: Question, seconds: float, came: Sequence[requests.Response]) -> ServiceError:
    """Return the error for an answer that was not whole in time.

    Args:
        question: What was asked.
        seconds: How long it was waited for.
        came: The answers that have begun to come, redirects among them.
    """
    if led := _where_it_led(question, came):
        hint = f"{_OTHER_PATH}; {_MORE_TIME}"
        return ServiceError(f"{led}, with no whole answer within {seconds:g} s", hint=hint)
    return ServiceError(f"{question} had no whole answer within {seconds:g} s", hint=_MORE_TIME)


def in_words(
    question: Question, exc: Exception, seconds: float, came: Sequence[requests.Response]
) -> ServiceError:
    """Return the error for a question that has failed.

    Args:
        question: What was asked.
        exc: What the HTTP library has raised.
        seconds: How long the answer was waited for.
        came: The answers that have begun to come, redirects among them.
    """
    from requests import exceptions
    from urllib3 import exceptions as below

    root = _root(exc)
    if isinstance(exc, exceptions.TooManyRedirects):
        return _in_circles(question, came)
    if isinstance(exc, exceptions.Timeout | below.TimeoutError):
        return too_slow(question, seconds, came)
    if isinstance(exc, exceptions.ContentDecodingError | below.DecodeError):
        return _not_encoded(question, root, came)
    if led := _where_it_led(question, came):
        return ServiceError(f"{led}, and that has failed: {_named(root)}", hint=_OTHER_PATH)
    parts = urlsplit(question.url)
    place = f"{parts.hostname}:{parts.port or parts.scheme}"
    if isinstance(exc, exceptions.SSLError):
        return ServiceError(
            f"{question}: TLS with {place} failed: {root}",
            hint="give the certificates to trust, with_tls(ca=...); they must name "
            f"{parts.hostname}. Or do not check them, with_tls(verify=False). A service without "
            "TLS needs no with_tls",
        )
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


def without_frames(exc: BaseException) -> BaseException:
    """Return what an exception of the HTTP library is about, without the library's frames.

    pytest shows the arguments of these, headers among them.
    """
    root = _root(exc)
    root.__cause__ = root.__context__ = None
    return root.with_traceback(None)


def _where_it_led(question: Question, came: Sequence[requests.Response]) -> str:
    """Say where a question was redirected to; nothing, if it was not."""
    led = hops(came) if question.follow_redirects else ""
    return f"{question} was redirected ({led})" if led else ""


def _in_circles(question: Question, came: Sequence[requests.Response]) -> ServiceError:
    last = Answer(came[-1], question.hide)
    return ServiceError(
        f"{question} leads from redirect to redirect ({hops(came)}); the last answer of "
        f"{len(came)} is {last}",
        hint=_OTHER_PATH,
    )


def _not_encoded(
    question: Question, root: BaseException, came: Sequence[requests.Response]
) -> ServiceError:
    encoding = came[-1].headers.get("Content-Encoding", "") if came else ""
    subject = _where_it_led(question, came) or str(question)
    return ServiceError(
        f"{subject}: the body of the answer is not encoded as its header says, "
        f"Content-Encoding: {encoding}: {_named(root)}",
        hint="the service must send what it names there; it may leave it out if it is asked to, "
        'headers={"Accept-Encoding": "identity"}',
    )


def _root(exc: BaseException) -> BaseException:
    """What the libraries in between have wrapped, in one of the ways they have."""
    while type(exc).__module__.startswith(("requests.", "urllib3.")):
        wrapped = [getattr(exc, "reason", None), *exc.args, exc.__cause__, exc.__context__]
        inner = next((each for each in wrapped if isinstance(each, BaseException)), None)
        if inner is None:
            break
        exc = inner
    return exc


def _named(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}".rstrip(": ")
