"""Start one PostgreSQL by testcontainers, ask it, stop it; print the seconds each step took."""

import time

began = time.perf_counter()

import json  # noqa: E402
import os  # noqa: E402

import psycopg  # noqa: E402
from testcontainers.community.postgres import PostgresContainer  # noqa: E402

imported = time.perf_counter()
container = PostgresContainer(os.environ["BENCH_IMAGE"], driver=None).start()
started = time.perf_counter()
with psycopg.connect(container.get_connection_url()) as connection:
    connection.execute("SELECT 1")
queried = time.perf_counter()
container.stop()
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
