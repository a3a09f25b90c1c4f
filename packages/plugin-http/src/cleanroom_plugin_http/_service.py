"""What tests are given: a running API, and a session bound to it."""

from __future__ import annotations

from functools import cached_property

from cleanroom import ServiceHandle
from cleanroom_plugin_http._session import ServiceSession
from cleanroom_plugin_http._tls import verify_option


class HttpService:
    """A running HTTP service.

    Attributes:
        handle: The service's handle.
    """

    def __init__(self, handle: ServiceHandle) -> None:
        self.handle = handle
        self._sessions: list[ServiceSession] = []

    @property
    def url(self) -> str:
        """Base URL of the service."""
        return self.handle.url

    @cached_property
    def session(self) -> ServiceSession:
        """A `requests.Session` to which paths are paths of the service.

        It is one for all tests, with its connections and cookies.
        """
        return self.new_session()

    def new_session(self) -> ServiceSession:
        """Return a session with no cookies yet. It is closed with the service."""
        session = ServiceSession(self.url, verify=verify_option(self.handle.metadata))
        self._sessions.append(session)
        return session

    def close(self) -> None:
        """Close the connections of all sessions."""
        while self._sessions:
            self._sessions.pop().close()

    def __repr__(self) -> str:
        """Show name and address."""
        return f"{type(self).__name__}({self.handle.service_name!r} at {self.handle.host!r})"
