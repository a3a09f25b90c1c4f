"""What tests are given: a running API, and a session bound to it."""

from __future__ import annotations

from functools import cached_property

from cleanroom import ServiceHandle
from cleanroom_plugin_http._session import ServiceSession


class HttpService:
    """A running HTTP service.

    Attributes:
        handle: The service's handle.
    """

    def __init__(self, handle: ServiceHandle) -> None:
        self.handle = handle

    @property
    def url(self) -> str:
        """Base URL of the service."""
        return self.handle.url

    @cached_property
    def session(self) -> ServiceSession:
        """A `requests.Session` to which paths are paths of the service."""
        facts = self.handle.metadata
        verify = facts.get("tls_verify", "yes")
        return ServiceSession(self.url, verify=facts.get("tls_ca") or verify == "yes")

    def close(self) -> None:
        """Close the session's connections."""
        if "session" in self.__dict__:
            self.session.close()

    def __repr__(self) -> str:
        """Show name and address."""
        return f"{type(self).__name__}({self.handle.service_name!r} at {self.handle.host!r})"
