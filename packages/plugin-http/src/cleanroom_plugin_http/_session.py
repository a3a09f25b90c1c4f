"""A `requests.Session` that knows where its service is."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import requests
from urllib3.exceptions import InsecureRequestWarning

_WHOLE_URL = re.compile(r"https?://", re.IGNORECASE)


class ServiceSession(requests.Session):
    """Sends requests to one service: `session.get("/orders")`.

    Proxies, certificates and passwords that the environment names for the outside world are not
    used.

    Args:
        base_url: What paths are added to.
        headers: Sent with every request.
        verify: Path of the certificates to trust, or whether to check the server's at all.
        timeout: Seconds to wait where a request does not say otherwise.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        verify: str | bool = True,
        timeout: float = 30.0,
    ) -> None:
        super().__init__()
        self.base_url = base_url.rstrip("/") + "/"
        self.timeout = timeout
        self.verify = verify
        self.trust_env = False
        self.headers.update(headers or {})

    def request(
        self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any
    ) -> requests.Response:
        """Send a request. A URL that is only a path is one of the service's."""
        if len(args) < _POSITION_OF_TIMEOUT:
            kwargs.setdefault("timeout", self.timeout)
        text = url.decode() if isinstance(url, bytes) else url
        if not _WHOLE_URL.match(text):
            text = self.base_url + text.lstrip("/")
        with _quiet_if(self.verify is False):
            return super().request(method, text, *args, **kwargs)


_POSITION_OF_TIMEOUT = 7
"""Of the arguments behind method and URL."""


@contextmanager
def _quiet_if(unverified: bool) -> Iterator[None]:
    """Keep quiet about certificates that are not checked, where that was asked for."""
    if not unverified:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InsecureRequestWarning)
        yield
