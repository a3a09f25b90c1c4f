"""The answer of a service, and how it is shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from cleanroom import ServiceError

if TYPE_CHECKING:
    import requests

_SHOWN = 300
"""Characters of a body that are shown in messages."""
_HOPS = 3
"""Redirects that are shown in messages."""
_LOOKED_AT = 64 * 1024
"""Characters in which secrets are hidden before they are cut: half of one is one as well."""
_HINT = (
    "the answer to expect, and the path, are set by with_health_check(path, expected), or by "
    "health = { path = ..., expect = ... }"
)


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
        response: As the HTTP library has it.
        hide: Removes secrets from a text.
    """

    response: requests.Response
    hide: Callable[[str], str] = field(repr=False)

    @property
    def text(self) -> str:
        """The body as text: in the encoding it states, else UTF-8, as JSON and most texts are."""
        content, kind = self.response.content, self.response.headers.get("Content-Type", "")
        stated = re.search(r"charset=\"?([\w.-]+)", kind)
        try:
            return content.decode(stated[1] if stated else "utf-8", errors="replace")
        except LookupError:
            return content.decode("utf-8", errors="replace")

    def __str__(self) -> str:
        """Status and beginning of the body."""
        body = self.hide(self.text.strip()[:_LOOKED_AT])
        shown = body[:_SHOWN] + ("..." if len(body) > _SHOWN else "")
        status = f"{self.response.status_code} {self.response.reason}"
        return f"{status}: {shown or 'an empty body'!r}"

    def differs(self, wanted: str) -> ServiceError:
        """Return the error for an answer that is not the one that was wanted."""
        asked = [*self.response.history, self.response]
        what = f"{asked[0].request.method} {asked[0].request.url}"
        if led := hops(self.response.history):
            what = f"{what} was redirected ({led}), which"
        return ServiceError(f"{what} answered {self}; expected {wanted}", hint=_HINT)


def hops(answers: Iterable[requests.Response]) -> str:
    """Say of redirects with which status they lead where; of many, the first and the last."""
    steps = [f"{each.status_code} to {_target(each)}" for each in answers if each.is_redirect]
    if len(steps) > _HOPS:
        steps[1:-1] = ["..."]
    return ", ".join(steps)


def _target(redirect: requests.Response) -> str:
    location = redirect.headers["Location"]
    try:
        return urljoin(redirect.url, location)
    except ValueError:
        return location
