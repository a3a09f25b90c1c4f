"""Start one PostgreSQL by the Python API, ask it, stop it; print the seconds each step took."""

import time

began = time.perf_counter()

import json  # noqa: E402
import os  # noqa: E402

import psycopg  # noqa: E402

from cleanroom_plugin_postgres import PostgresPlugin  # noqa: E402

imported = time.perf_counter()
plugin = PostgresPlugin(image=os.environ.get("BENCH_IMAGE"))
handle = plugin.start()
started = time.perf_counter()
with psycopg.connect(handle.url) as connection:
    connection.execute("SELECT 1")
queried = time.perf_counter()
plugin.stop(handle)
stopped = time.perf_counter()

print(
    json.dumps(
        {
            "import": imported - began,
            "start": started - imported,
            "first query": queried - began,
            "stop": stopped - queried,
        }
    )
)
