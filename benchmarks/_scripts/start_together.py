"""Start the named services in one environment; print the seconds until all of them answered."""

import json
import sys
import time

import psycopg  # noqa: F401 - tests import the clients anyway
import redis  # noqa: F401
import requests  # noqa: F401

from cleanroom import CleanroomEnvironment
from cleanroom_plugin_http import HttpPlugin
from cleanroom_plugin_postgres import PostgresPlugin
from cleanroom_plugin_redis import RedisPlugin

PLUGINS = {
    "postgres": PostgresPlugin(),
    "redis": RedisPlugin(),
    "http": HttpPlugin(
        "http", command=["python", "-m", "http.server", "{port}", "--bind", "{host}"]
    ),
}

with CleanroomEnvironment() as env:
    for name in sys.argv[1:]:
        env.register(PLUGINS[name])
    began = time.perf_counter()
    env.start_all()
    started = time.perf_counter() - began

print(json.dumps({"started": started}))
