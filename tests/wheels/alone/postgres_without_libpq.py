"""The PostgreSQL plugin without its extra: the driver needs the system's libpq."""

import ctypes.util
import subprocess
import sys
from importlib.util import find_spec

from cleanroom import ConfigurationError
from cleanroom_plugin_postgres import PostgresPlugin

assert find_spec("psycopg_binary") is None
assert find_spec("cleanroom_postgres_server") is None

if sys.argv[1:] != ["hidden"] and ctypes.util.find_library("pq"):
    import psycopg

    assert psycopg.pq.__impl__ == "python"
    subprocess.run([sys.executable, "-I", __file__, "hidden"], check=True)
else:
    ctypes.util.find_library = lambda name: None  # as on a machine that has no libpq
    message = ""
    try:
        PostgresPlugin("db", backend="external", url="postgresql://u:secret@127.0.0.1:9/d").start()
    except ConfigurationError as error:
        message = str(error)
    assert "psycopg cannot be used here" in message, message
    assert "pip install 'cleanroom-plugin-postgres[embedded]'" in message, message
    assert "secret" not in message
