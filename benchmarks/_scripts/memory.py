"""Start a PostgreSQL, ask it, and print how much memory each part has, in kilobytes.

With the argument `bare` nothing is started: it is what a client has anyway.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

import psycopg


def parent_of(pid):
    stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return int(stat.rpartition(")")[2].split()[1])


def descendants_of(pid):
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(entry)] = parent_of(entry)
    found, wanted = set(), {pid}
    while wanted:
        wanted = {child for child, parent in parents.items() if parent in wanted} - found
        found |= wanted
    return found


def memory_of(pids):
    total = {"PSS": 0, "RSS": 0}
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name = line.partition(":")[0].upper()
            if name in total:
                total[name] += int(line.split()[1])
    return total


client = {os.getpid()}
if sys.argv[1:] == ["bare"]:
    print(json.dumps({"client": memory_of(client)}))
    sys.exit()

from cleanroom_plugin_postgres import PostgresPlugin  # noqa: E402

plugin = PostgresPlugin()
handle = plugin.start()
try:
    with psycopg.connect(handle.url) as connection:
        connection.execute("SELECT 1")
        top = int(handle.require("pid"))
        server = {top} | descendants_of(top)
        warden = {parent_of(top)} - client  # whose child the server is
        parts = {"client": client, "warden": warden, "server": server}
        parts["other helpers"] = descendants_of(os.getpid()) - server - warden
        print(json.dumps({name: memory_of(pids) for name, pids in parts.items()}))
finally:
    plugin.stop(handle)
