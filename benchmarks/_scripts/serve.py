"""Start a PostgreSQL, print its URL, and stop it when standard input ends."""

import sys

from cleanroom_plugin_postgres import PostgresPlugin

plugin = PostgresPlugin()
handle = plugin.start()
try:
    print(handle.url, flush=True)
    sys.stdin.read()
finally:
    plugin.stop(handle)
