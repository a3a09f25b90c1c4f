"""One connection that serves test after test, made as good as new before each.

Connecting and saying who one is takes several times as long as all else that a small test does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import redis

from cleanroom_plugin_redis._client import connect

Command = tuple[Any, ...]


class _Packed(NamedTuple):
    """Commands as a connection sends them."""

    data: Sequence[bytes]
    number: int


class ReusedConnection:
    """The connection of one process to one database.

    Args:
        metadata: Of a handle of the database.
    """

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._metadata = metadata
        self._pool: _Pool | None = None
        self._is_new = False

    def renew(self) -> bool:
        """Empty the database, and have the server forget all about the connection.

        Returns:
            Whether that was possible. If not, the connection is closed, and the database may be as
            it was.
        """
        self._is_new = self._pool is not None and self._pool.renew(self._metadata["database_name"])
        if not self._is_new:
            self.close()
        return self._is_new

    def client(self) -> redis.Redis:
        """Return a client of which the server remembers nothing: no name, no subscription.

        It has the connection, unless there was a client since that was renewed.
        """
        if self._pool is None:
            self._pool = _Pool.like(connect(self._metadata).connection_pool)
        elif not self._is_new:
            return connect(self._metadata)
        self._is_new = False
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
        self._made: list[Any] = []
        self._lent = 0
        self._renewal: _Packed | None = None
        super().__init__(**options)

    def make_connection(self) -> Any:
        connection = super().make_connection()
        self._made.append(connection)
        return connection

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        connection = super().get_connection(*arguments, **options)
        self._lent += 1
        return connection

    def release(self, connection: Any) -> None:
        super().release(connection)
        self._lent -= 1

    def renew(self, database: str) -> bool:
        """Make its connection as good as new, and empty the database.

        Returns:
            Whether it has just one, and that was possible.
        """
        if len(self._made) != 1 or self._lent:
            return False
        [connection] = self._made
        try:
            if self._renewal is None:
                self._renewal = _pack(connection, _learn_renewal(connection, database))
            answers = _ask_at_once(connection, self._renewal)
        except (redis.RedisError, OSError):
            return False
        # Anything else at the beginning is what the test has left unread.
        return (answers[0], answers[-1]) == (b"RESET", [b"OK", b"OK"])


def _learn_renewal(connection: Any, database: str) -> Sequence[Command]:
    """Return the commands that renew a connection, and empty a database.

    In a transaction, because what cannot be selected must not be emptied either.
    """
    _ask_at_once(connection, _pack(connection, [("RESET",)]))  # of Redis 6.2 and later
    empty = [("MULTI",), ("SELECT", database), ("FLUSHDB",), ("EXEC",)]
    return [("RESET",), *_introduce(connection), *empty]


def _introduce(connection: Any) -> list[Command]:
    """Have a connection say who it is, and return the commands that the server has taken."""
    sent: list[Command] = []
    taken: list[Command] = []
    send, read = connection.send_command, connection.read_response

    def send_command(*command: Any, **options: Any) -> None:
        sent.append(command)
        send(*command, **options)

    def read_response(*arguments: Any, **options: Any) -> Any:
        answer = read(*arguments, **options)
        taken.append(sent[-1])
        return answer

    connection.send_command, connection.read_response = send_command, read_response
    try:
        connection.on_connect()
    finally:
        del connection.send_command, connection.read_response
    return taken


def _pack(connection: Any, commands: Sequence[Command]) -> _Packed:
    return _Packed(connection.pack_commands(commands), len(commands))


def _ask_at_once(connection: Any, commands: _Packed) -> list[Any]:
    """Send commands together, and return the answers. Raises the first error among them."""
    connection.send_packed_command(commands.data)
    return [connection.read_response() for _ in range(commands.number)]
