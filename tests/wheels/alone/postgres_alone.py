"""The PostgreSQL plugin with its extra: neither an engine nor an installed server is needed."""

import psycopg

from cleanroom import CleanroomEnvironment, HealthStatus
from cleanroom_plugin_postgres import PostgresPlugin

plugin = PostgresPlugin("db")
with CleanroomEnvironment().register(plugin) as env:
    handle = env["db"]
    assert handle.metadata["backend"] == "process", handle.metadata["backend_reason"]
    assert "embedded" in handle.metadata["backend_reason"], handle.metadata["backend_reason"]
    with psycopg.connect(handle.url) as connection:
        assert connection.execute("SELECT 6 * 7").fetchone() == (42,)
    assert psycopg.pq.__impl__ == "binary"
    assert env.health() == {"db": HealthStatus.HEALTHY}
assert plugin.health_check(handle) is not HealthStatus.HEALTHY
