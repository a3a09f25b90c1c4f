"""Start a PostgreSQL, print what leads to it, and stop it when standard input ends."""

import json
import sys

from cleanroom_plugin_postgres import PostgresPlugin

plugin = PostgresPlugin()
handle = plugin.start()
try:
    facts = {
        "BENCH_SERVER_URL": handle.url,
        "BENCH_SERVER_SOCKET": handle.require("socket_directory"),
    }
    print(json.dumps(facts), flush=True)
    sys.stdin.read()
finally:
    plugin.stop(handle)
