"""Start one Redis by the Python API, ping it, stop it; print the seconds each step took."""

import time

began = time.perf_counter()

import json  # noqa: E402
import os  # noqa: E402

import redis  # noqa: E402

from cleanroom_plugin_redis import RedisPlugin  # noqa: E402

plugin = RedisPlugin(image=os.environ.get("BENCH_REDIS_IMAGE"))
handle = plugin.start()
with redis.Redis.from_url(handle.url) as client:
    client.ping()
pinged = time.perf_counter()
plugin.stop(handle)
stopped = time.perf_counter()

print(json.dumps({"first ping": pinged - began, "stop": stopped - pinged}))
