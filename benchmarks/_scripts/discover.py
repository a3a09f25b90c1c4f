"""Find plugins among all installed distributions; print the seconds.

Further distributions are those of the folders in PYTHONPATH.
"""

import importlib.metadata
import json
import time

from cleanroom import discovery

number = sum(1 for _ in importlib.metadata.distributions())  # warms the system's caches

began = time.perf_counter()
list(importlib.metadata.entry_points(group="cleanroom.plugins"))
floor = time.perf_counter() - began

began = time.perf_counter()
found = {entry.name for entry in discovery.installed()}
ours = time.perf_counter() - began

assert found >= {"postgres", "redis", "http"}
print(json.dumps({"distributions": number, "importlib.metadata": floor, "cleanroom": ours}))
