"""A small shop: orders in PostgreSQL, carts and rate limits in Redis.

It is told where its stores are by DATABASE_URL and REDIS_URL.
"""

from shop.app import create_app

__all__ = ["create_app"]
