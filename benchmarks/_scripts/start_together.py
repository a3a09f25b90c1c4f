"""Start the named services in one environment and stop them; print the seconds of both."""

import gc
import json
import sys
import time
from pathlib import Path

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
    "web": HttpPlugin(
        "web",
        command=[
            "python",
            "-m",
            "waitress",
            "--listen={host}:{port}",
            "--call",
            "web_api:create_app",
        ],
        cwd=Path(__file__).parent,
    ).with_health_check("/health", "OK"),
}

with CleanroomEnvironment() as env:
    for name in sys.argv[1:]:
        env.register(PLUGINS[name])
    # What the imports have left to collect is not what starting services costs; whether a full
    # collection becomes due meanwhile would depend on how much that was.
    gc.collect()
    began = time.monotonic()
    env.start_all()
    started = time.monotonic()
stopped = time.monotonic()

seconds = {"started": started - began, "stopped": stopped - started}
print(json.dumps({**seconds, "stop called at": started}))
