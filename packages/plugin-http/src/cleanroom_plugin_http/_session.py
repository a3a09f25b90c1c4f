"""A `requests.Session` that knows where its service is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

import requests


class ServiceSession(requests.Session):
    """Sends requests to one service: `session.get("/orders")`.

    Args:
        base_url: Where paths are relative to.
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
        self.trust_env = False  # a proxy of the machine's has no business between us
        self.headers.update(headers or {})

    def request(
        self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any
    ) -> requests.Response:
        """Send a request. A URL that is only a path is one of the service's."""
        kwargs.setdefault("timeout", self.timeout)
        text = url.decode() if isinstance(url, bytes) else url
        if not text.startswith(("http://", "https://")):
            text = urljoin(self.base_url, text.lstrip("/"))
        return super().request(method, text, *args, **kwargs)
