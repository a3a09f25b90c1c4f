"""What tests are given: an empty database of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cleanroom import ServiceHandle
from cleanroom_plugin_redis import _isolation
from cleanroom_plugin_redis._client import connect

if TYPE_CHECKING:
    import redis


class Database:
    """A Redis database of a test's own.

    Attributes:
        handle: The service's handle, leading to this database.
    """

    def __init__(self, handle: ServiceHandle) -> None:
        self.handle = handle
        self._clients: list[redis.Redis] = []

    @property
    def url(self) -> str:
        """URL with credentials. It stays the same for all tests of one worker."""
        return self.handle.url

    @property
    def name(self) -> str:
        """Number of the database, as text."""
        return self.handle.require("database_name")

    @property
    def number(self) -> int:
        """Number of the database."""
        return int(self.name)

    def client(self, **options: Any) -> redis.Redis:
        """Return a client with connections of its own. They are closed after the test.

        The first client's connection may be the one of the test before, which the server was told
        to forget all about (`RESET`).

        Args:
            options: Further arguments of `redis.Redis`, for instance `decode_responses=True`.
        """
        if options or self._clients:
            client = connect(self.handle.metadata, **options)
        else:
            client = _isolation.client(self.handle)
        self._clients.append(client)
        return client

    def close(self) -> None:
        """Close the clients that `client` returned."""
        while self._clients:
            self._clients.pop().close()

    def __repr__(self) -> str:
        """Show the number, and no password."""
        return f"{type(self).__name__}({self.number} on {self.handle.service_name!r})"
