"""The Redis plugin with its extra: neither an engine nor an installed server is needed."""

import redis

from cleanroom import CleanroomEnvironment, HealthStatus
from cleanroom_plugin_redis import RedisPlugin

plugin = RedisPlugin("cache").with_password("correct-horse")
with CleanroomEnvironment().register(plugin) as env:
    handle = env["cache"]
    assert handle.metadata["backend"] == "process", handle.metadata["backend_reason"]
    with redis.Redis.from_url(handle.url) as client:
        assert client.ping()
    assert env.health() == {"cache": HealthStatus.HEALTHY}
assert plugin.health_check(handle) is not HealthStatus.HEALTHY
