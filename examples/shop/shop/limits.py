"""Rate limits: in Redis, a counter for each customer that expires."""

import redis

from shop.errors import TooManyRequestsError


class RateLimit:
    """At most so many requests in so many seconds."""

    def __init__(self, store: redis.Redis, most: int, seconds: int) -> None:
        self._store = store
        self._most = most
        self._seconds = seconds

    def count(self, customer: str) -> None:
        """Count a request.

        Raises:
            TooManyRequestsError: It is one too many.
        """
        key = f"limit:{customer}"
        with self._store.pipeline() as pipeline:
            pipeline.incr(key)
            pipeline.expire(key, self._seconds, nx=True)
            pipeline.ttl(key)
            count, _, left = pipeline.execute()
        if count > self._most:
            raise TooManyRequestsError(f"{customer} asks too often", retry_after=left)
