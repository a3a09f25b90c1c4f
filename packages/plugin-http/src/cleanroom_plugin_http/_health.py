"""The question that tells whether a service is ready, and how it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cleanroom_plugin_http._ask import ask
from cleanroom_plugin_http._expect import Expected, hold_against, hold_below
from cleanroom_plugin_http._question import Question
from cleanroom_plugin_http._tls import verify_option


@dataclass(frozen=True)
class HealthCheck:
    """The question a healthy service answers, and the answer.

    Attributes:
        path: What is asked for with `GET`.
        expected: See `HttpPlugin.with_health_check`.
        timeout: Seconds to wait for one answer.
        headers: Sent along.
        follow_redirects: Whether the answer counts that a redirect leads to.
        below: Any status below this one is expected, and nothing else.
    """

    path: str = field(default="/", repr=False)  # a parameter of it may be secret
    expected: Expected = None
    timeout: float = 1.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    follow_redirects: bool = True
    below: int | None = None

    def ask(self, endpoint: Mapping[str, str], timeout: float, hide: Callable[[str], str]) -> None:
        """Ask the service at an endpoint, and hold its answer against what is expected.

        Args:
            endpoint: The metadata of the service's handle.
            timeout: Seconds after which to give up.
            hide: Removes secrets from a text.

        Raises:
            ServiceError: It did not answer, or otherwise.
        """
        deadline = time.monotonic() + timeout
        question = Question(
            endpoint["url"],
            self.path,
            self.headers,
            self.follow_redirects,
            verify_option(endpoint),
            hide,
        )
        answer = ask(question, min(timeout, self.timeout))
        if self.below is not None:
            hold_below(answer, self.below)
        else:
            hold_against(answer, self.expected, max(0.0, deadline - time.monotonic()))


ANY_ANSWER = HealthCheck(below=500)
"""For a service of which nothing is known: whatever it has at its root, it is no error of its."""
