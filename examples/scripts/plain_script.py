"""A script with a PostgreSQL and a Redis of its own: `python plain_script.py`."""

import psycopg
import redis

from cleanroom import CleanroomEnvironment


def main() -> None:
    # Reads pyproject.toml, here or in a folder above. Starts nothing yet.
    with CleanroomEnvironment.from_config() as env:
        env.start_all()  # both at the same time; without it, each when it is first asked for
        with psycopg.connect(env["db"].url) as connection:
            (version,) = connection.execute("SHOW server_version").fetchone()
            print("PostgreSQL", version)
        with redis.Redis.from_url(env["cache"].url) as cache:
            cache.set("greeting", "hello")
            print("Redis says", cache.get("greeting").decode())
        for name, status in env.health().items():
            print(name, "is", status.value)
    # Both are gone here, however the block ended.


if __name__ == "__main__":
    main()
