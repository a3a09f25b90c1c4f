"""The fixtures `redis_service` and `redis_db`.

Nothing is imported here until a test asks: this module is loaded in every pytest run.
"""

from __future__ import annotations

from cleanroom_plugin_redis._fixtures import redis_fixtures

redis_service, redis_db = redis_fixtures()
