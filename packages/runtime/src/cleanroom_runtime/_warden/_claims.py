"""What one client does for all others, and what one client holds for itself."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._clients import Connection


class _Claim:
    """Something that one client does for all."""

    def __init__(self, owner: Connection, waiting: list[Connection]) -> None:
        self.owner: Connection | None = owner
        self.waiting = waiting
        self.outcome: str | None = None


class Claims:
    """Who does what for all, who waits for it, and how it ended.

    A claim lives as long as the connection it was made over. When that closes before the outcome
    is known, however it came to that, the next in line does it.
    """

    def __init__(self) -> None:
        self._claims: dict[str, _Claim] = {}

    def claim(self, connection: Connection, key: str) -> None:
        """Grant it to the first; tell the others the outcome when there is one."""
        claim = self._claims.get(key)
        if claim is None:
            self._claims[key] = _Claim(connection, [])
            connection.reply(granted=True)
        elif claim.outcome is not None:
            connection.reply(granted=False, outcome=claim.outcome)
        else:
            claim.waiting.append(connection)

    def settle(self, connection: Connection, key: str, outcome: str) -> None:
        """Note how it ended, and tell those who wait."""
        claim = self._claims.get(key)
        if claim is None or claim.outcome is not None or not _is_owner(connection, claim):
            connection.refuse(f"{key!r} is not claimed by this process")
            return
        claim.outcome, claim.owner = outcome, None
        for waiter in claim.waiting:
            waiter.reply(granted=False, outcome=outcome)
        claim.waiting.clear()
        connection.reply()

    def disclaim(self, connection: Connection, key: str) -> None:
        """Leave it to the next in line. Nothing happens if somebody else has it already."""
        claim = self._claims.get(key)
        if claim is not None and claim.outcome is None and _is_owner(connection, claim):
            self._pass_on(key, claim)
        connection.reply()

    def closed(self, connection: Connection) -> None:
        """Pass on what was claimed over a connection that has closed."""
        for key, claim in list(self._claims.items()):
            if connection in claim.waiting:
                claim.waiting.remove(connection)
            if claim.owner is connection:
                self._pass_on(key, claim)

    def outcomes(self, prefix: str) -> dict[str, str]:
        """Return what has ended, under keys with this prefix."""
        return {
            key: claim.outcome
            for key, claim in self._claims.items()
            if key.startswith(prefix) and claim.outcome is not None
        }

    def _pass_on(self, key: str, claim: _Claim) -> None:
        del self._claims[key]
        if claim.waiting:
            first, *others = claim.waiting
            self._claims[key] = _Claim(first, others)
            first.reply(granted=True)


def _is_owner(connection: Connection, claim: _Claim) -> bool:
    """A process may use another of its connections for the outcome."""
    return claim.owner is not None and claim.owner.pid == connection.pid


class Leases:
    """Numbers that processes hold for as long as they live."""

    def __init__(self) -> None:
        self._pools: dict[str, dict[int, int]] = {}  # pool: number: pid of its holder

    def lease(self, connection: Connection, request: dict[str, Any]) -> None:
        """Give the lowest free number of a pool."""
        pool, size = self._pools.setdefault(request["pool"], {}), int(request["size"])
        index = next((index for index in range(size) if index not in pool), None)
        if index is None:
            connection.refuse(f"all {size} of {request['pool']} are leased")
            return
        pool[index] = connection.pid
        connection.reply(index=index)

    def release(self, connection: Connection, request: dict[str, Any]) -> None:
        """Take a number back from who holds it."""
        pool, index = self._pools.get(request["pool"], {}), int(request["index"])
        if pool.get(index) == connection.pid:
            del pool[index]
        connection.reply()

    def gone(self, pid: int) -> None:
        """Take back all that a process held."""
        for pool in self._pools.values():
            for index in [index for index, holder in pool.items() if holder == pid]:
                del pool[index]
