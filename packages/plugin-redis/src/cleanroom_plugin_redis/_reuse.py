"""One connection that serves test after test, made as good as new before each.

Connecting and saying who one is takes several times as long as all else that a small test does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis

from cleanroom_plugin_redis._client import connect


class ReusedConnection:
    """The connection of one process to one database.

    Args:
        metadata: Of a handle of the database.
    """

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._metadata = metadata
        self._pool: _Pool | None = None

    def client(self) -> redis.Redis:
        """Return a client of which the server remembers nothing: no name, no subscription."""
        if self._pool is None or not self._pool.renew():
            self.close()
            self._pool = _Pool.like(connect(self._metadata).connection_pool)
        return redis.Redis(connection_pool=self._pool)

    def close(self) -> None:
        """Close it, and what a test has left open beside it."""
        if self._pool is not None:
            self._pool.disconnect()
            self._pool = None


class _Pool(redis.ConnectionPool):
    """Knows how many connections it has made, and how many are in use."""

    @classmethod
    def like(cls, pool: redis.ConnectionPool) -> _Pool:
        """Return one that connects as another pool does."""
        options = {
            key: value
            for key, value in pool.connection_kwargs.items()
            if not key.startswith("maint_notifications")  # which are bound to that pool
        }
        return cls(connection_class=pool.connection_class, **options)

    def __init__(self, **options: Any) -> None:
        self._made = self._lent = 0
        super().__init__(**options)

    def make_connection(self) -> Any:
        self._made += 1
        return super().make_connection()

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        connection = super().get_connection(*arguments, **options)
        self._lent += 1
        return connection

    def release(self, connection: Any) -> None:
        super().release(connection)
        self._lent -= 1

    def renew(self) -> bool:
        """Make its connection as good as new; whether it has just one, and that was possible."""
        if self._made != 1 or self._lent:
            return False
        try:
            named = () if redis.VERSION >= (5, 3) else ("RESET",)
            connection = self.get_connection(*named)
            try:
                connection.send_command("RESET")  # of Redis 6.2 and later
                connection.read_response()
                connection.on_connect()
            finally:
                self.release(connection)
        except (redis.RedisError, OSError):
            return False
        return True
