"""Carts: in Redis, a hash for each customer, gone a day after it was last changed."""

import redis

LIFETIME = 24 * 60 * 60
"""Seconds for which a cart is kept."""


class Carts:
    def __init__(self, store: redis.Redis) -> None:
        self._store = store

    def items(self, customer: str) -> dict[str, int]:
        """Return the quantity of each SKU."""
        found = self._store.hgetall(_key(customer))
        return {sku: int(quantity) for sku, quantity in found.items()}

    def put(self, customer: str, sku: str, quantity: int) -> None:
        """Set the quantity of a SKU; none takes it out."""
        with self._store.pipeline() as pipeline:
            if quantity > 0:
                pipeline.hset(_key(customer), sku, quantity)
            else:
                pipeline.hdel(_key(customer), sku)
            pipeline.expire(_key(customer), LIFETIME)
            pipeline.execute()

    def clear(self, customer: str) -> None:
        self._store.delete(_key(customer))


def _key(customer: str) -> str:
    return f"cart:{customer}"
