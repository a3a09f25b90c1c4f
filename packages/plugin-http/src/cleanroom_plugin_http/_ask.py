"""Asking a service one question, within a bound, and saying in words how it did not answer."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

from cleanroom_plugin_http._answer import Answer
from cleanroom_plugin_http._question import Question
from cleanroom_plugin_http._trouble import in_words, too_slow, without_frames
from cleanroom_runtime import NotReturnedError, call_within

if TYPE_CHECKING:
    import requests

MOST_BYTES = 4 * 1024 * 1024
"""Of an answer; what comes behind is not read."""
_CHUNK = 64 * 1024


def ask(question: Question, seconds: float) -> Answer:
    """Return the answer, read as a whole.

    Raises:
        ServiceError: There was none in time, however slowly it came, or none that is HTTP.
    """
    came: list[requests.Response] = []

    def answer() -> requests.Response:
        return _answer(question, time.monotonic() + seconds, seconds, came)

    try:
        # A timeout of requests is for each piece of an answer, of which there may be many.
        return Answer(call_within(answer, seconds), question.hide)
    except NotReturnedError as exc:
        raise too_slow(question, seconds, came) from exc
    except Exception as exc:  # noqa: BLE001 - raised in words
        raise in_words(question, exc, seconds, came) from without_frames(exc)


def _answer(
    question: Question, deadline: float, seconds: float, came: list[requests.Response]
) -> requests.Response:
    """Ask, and note each answer as soon as it begins, redirects among them."""
    from urllib3 import HTTPResponse

    from cleanroom_plugin_http._session import ServiceSession

    with (
        ServiceSession(
            question.url, headers=question.headers, verify=question.verify, timeout=seconds
        ) as session,
        session.get(
            question.path,
            allow_redirects=question.follow_redirects,
            stream=True,
            hooks={"response": lambda response, **_: came.append(response)},
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
