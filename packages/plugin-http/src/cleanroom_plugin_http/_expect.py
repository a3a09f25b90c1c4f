"""What answer a healthy service gives, and in which way another one differs from it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from cleanroom import ServiceError, ValidationError
from cleanroom_runtime import NotReturnedError, call_within

if TYPE_CHECKING:
    import requests

Expected: TypeAlias = "int | str | re.Pattern[str] | Mapping[str, object] | list[object] | Callable[[requests.Response], object] | None"  # noqa: E501
"""A status; a text that the body has; a pattern it matches; a part of its JSON; a callable that is
given the response and raises, or returns `False`, where it is wrong; or any status below 400."""

_SHOWN = 300
"""Characters of a body that are shown in messages."""
_HINT = (
    "the answer to expect, and the path, are set by with_health_check(path, expected), or by "
    "health = { path = ..., expect = ... }"
)


def check_expected(value: Expected) -> Expected:
    """Return what is expected, if it is something an answer can be held against.

    Raises:
        ValidationError: It is not.
    """
    fits = value is None or isinstance(value, str | re.Pattern | Mapping | list) or callable(value)
    status = isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599
    if isinstance(value, re.Pattern):
        fits = isinstance(value.pattern, str)  # one of bytes matches no text
    if not (fits or status):
        raise ValidationError(
            f"expected is {value!r}",
            hint="it is a status, a text, a compiled pattern, a part of a JSON answer, or a "
            "callable that is given the response",
        )
    return value


def hold_against(response: requests.Response, expected: Expected, timeout: float) -> None:
    """Raise where an answer is not what was expected.

    Args:
        response: The answer.
        expected: What was expected.
        timeout: Seconds that a callable may take to tell.

    Raises:
        ServiceError: It differs; says in what, and shows the answer.
    """
    if isinstance(expected, int):
        if response.status_code != expected:
            raise _differs(response, f"status {expected}")
    elif callable(expected):
        _ask_callable(response, expected, timeout)
    elif response.status_code >= 400:
        raise _differs(response, "a status below 400")
    elif isinstance(expected, str):
        if expected not in text_of(response):
            raise _differs(response, f"the text {expected!r}")
    elif isinstance(expected, re.Pattern):
        if expected.search(text_of(response)) is None:
            raise _differs(response, f"a match of {expected.pattern!r}")
    elif expected is not None:
        _hold_json_against(response, expected)


def hold_below(response: requests.Response, status: int) -> None:
    """Raise where an answer has this status or a higher one."""
    if response.status_code >= status:
        raise _differs(response, f"a status below {status}")


def text_of(response: requests.Response) -> str:
    """The body as text: in the encoding it states, else UTF-8, as JSON and most texts are."""
    stated = re.search(r"charset=\"?([\w.-]+)", response.headers.get("Content-Type", ""))
    try:
        return response.content.decode(stated[1] if stated else "utf-8", errors="replace")
    except LookupError:
        return response.content.decode("utf-8", errors="replace")


def name_of(function: object) -> str:
    """What a callable is called, as a person would."""
    return str(getattr(function, "__qualname__", function))


def _ask_callable(
    response: requests.Response, expected: Callable[[requests.Response], object], timeout: float
) -> None:
    what = f"what {name_of(expected)} accepts"
    try:
        verdict = call_within(lambda: expected(response), timeout)
    except NotReturnedError as exc:
        raise _differs(response, f"{what}, but {exc}") from exc
    except Exception as exc:
        said = f"{type(exc).__name__}: {exc}".rstrip(": ")
        raise _differs(response, f"{what}, which raised {said}") from exc
    if verdict is False:
        raise _differs(response, what)


def _hold_json_against(response: requests.Response, expected: object) -> None:
    try:
        found = json.loads(text_of(response))
    except ValueError:
        raise _differs(response, "JSON") from None
    if not _is_part(expected, found):
        raise _differs(response, f"JSON with {expected!r}")


def _is_part(part: object, whole: object) -> bool:
    """Whether JSON has what is asked for: objects may have more keys, lists must be equal long."""
    if isinstance(part, Mapping):
        return isinstance(whole, Mapping) and all(
            key in whole and _is_part(value, whole[key]) for key, value in part.items()
        )
    if isinstance(part, list):
        return (
            isinstance(whole, list) and len(part) == len(whole) and all(map(_is_part, part, whole))
        )
    return part == whole and isinstance(part, bool) == isinstance(whole, bool)


def _differs(response: requests.Response, wanted: str) -> ServiceError:
    body = text_of(response).strip()
    shown = body[:_SHOWN] + ("..." if len(body) > _SHOWN else "")
    return ServiceError(
        f"{response.request.method} {response.url} answered {response.status_code} "
        f"{response.reason}: {shown or 'an empty body'!r}; expected {wanted}",
        hint=_HINT,
    )
