"""A question to a service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


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
