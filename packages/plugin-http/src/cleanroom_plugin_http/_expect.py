"""What answer a healthy service gives, and in which way another one differs from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from cleanroom import ServiceError, ValidationError

if TYPE_CHECKING:
    import requests

Expected: TypeAlias = "int | str | re.Pattern[str] | Mapping[str, object] | list[object] | Callable[[requests.Response], object]"  # noqa: E501
"""A status; a text that the body has; a pattern it matches; a part of its JSON; or a callable that
is given the response and returns something true, or raises, saying what is wrong."""

_SHOWN = 300
"""Characters of a body that are shown in messages."""


def check_expected(value: Expected) -> Expected:
    """Return what is expected, if it is something an answer can be held against.

    Raises:
        ValidationError: It is not.
    """
    fits = isinstance(value, str | re.Pattern | Mapping | list) or callable(value)
    status = isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599
    if not (fits or status):
        raise ValidationError(
            f"expected is {value!r}",
            hint="it is a status, a text, a compiled pattern, a part of a JSON answer, or a "
            "callable that is given the response",
        )
    return value


def hold_against(response: requests.Response, expected: Expected) -> None:
    """Raise where an answer is not what was expected.

    Raises:
        ServiceError: It differs; says in what, and shows the answer.
    """
    if isinstance(expected, int):
        if response.status_code != expected:
            raise _differs(response, f"status {expected}")
        return
    if not response.ok:
        raise _differs(response, "a status below 400")
    if isinstance(expected, str):
        if expected not in response.text:
            raise _differs(response, f"the text {expected!r}")
    elif isinstance(expected, re.Pattern):
        if expected.search(response.text) is None:
            raise _differs(response, f"a match of {expected.pattern!r}")
    elif callable(expected):
        if expected(response) is False:
            raise _differs(response, f"what {_name(expected)} accepts")
    else:
        _hold_json_against(response, expected)


def _hold_json_against(response: requests.Response, expected: object) -> None:
    try:
        found = response.json()
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
    body = response.text.strip()
    shown = body[:_SHOWN] + ("..." if len(body) > _SHOWN else "")
    return ServiceError(
        f"{response.request.method} {response.url} answered {response.status_code} "
        f"{response.reason}: {shown or 'an empty body'!r}; expected {wanted}"
    )


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", function))
