"""What answer a healthy service gives, and in which way another one differs from it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from cleanroom import ValidationError
from cleanroom_plugin_http._answer import Answer
from cleanroom_runtime import NotReturnedError, call_within

if TYPE_CHECKING:
    import requests

Expected: TypeAlias = "int | str | re.Pattern[str] | Mapping[str, object] | list[object] | Callable[[requests.Response], object] | None"  # noqa: E501
"""A status; a text that the body has; a pattern it matches; a part of its JSON; a callable that is
given the response and raises, or returns `False`, where it is wrong; or any status below 400."""


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


def hold_against(answer: Answer, expected: Expected, timeout: float) -> None:
    """Raise where an answer is not what was expected.

    Args:
        answer: The answer.
        expected: What was expected.
        timeout: Seconds that a callable may take to tell.

    Raises:
        ServiceError: It differs; says in what, and shows the answer.
    """
    if isinstance(expected, int):
        if answer.response.status_code != expected:
            raise answer.differs(f"status {expected}")
    elif callable(expected):
        _ask_callable(answer, expected, timeout)
    elif answer.response.status_code >= 400:
        raise answer.differs("a status below 400")
    elif isinstance(expected, str):
        if expected not in answer.text:
            raise answer.differs(f"the text {expected!r}")
    elif isinstance(expected, re.Pattern):
        if expected.search(answer.text) is None:
            raise answer.differs(f"a match of {expected.pattern!r}")
    elif expected is not None:
        _hold_json_against(answer, expected)


def hold_below(answer: Answer, status: int) -> None:
    """Raise where an answer has this status or a higher one."""
    if answer.response.status_code >= status:
        raise answer.differs(f"a status below {status}")


def name_of(function: object) -> str:
    """What a callable is called, as a person would."""
    return str(getattr(function, "__qualname__", function))


def _ask_callable(
    answer: Answer, expected: Callable[[requests.Response], object], timeout: float
) -> None:
    what = f"what {name_of(expected)} accepts"
    try:
        verdict = call_within(lambda: expected(answer.response), timeout)
    except NotReturnedError as exc:
        raise answer.differs(f"{what}, but {exc}") from exc
    except Exception as exc:
        said = f"{type(exc).__name__}: {exc}".rstrip(": ")
        raise answer.differs(f"{what}, which raised {said}") from exc
    if verdict is False:
        raise answer.differs(what)


def _hold_json_against(answer: Answer, expected: object) -> None:
    try:
        found = json.loads(answer.text)
    except ValueError:
        raise answer.differs("JSON") from None
    if not _is_part(expected, found):
        raise answer.differs(f"JSON with {expected!r}")


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
