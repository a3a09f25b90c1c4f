"""Find plugins among all installed distributions; print the seconds, and how many there are.

With the argument `importlib.metadata` this finds them, and not Cleanroom. Each time is that of the
first question in a process. Further distributions are those of the folders in PYTHONPATH.
"""

import importlib.metadata
import json
import sys
import time

from cleanroom import discovery

began = time.perf_counter()
if sys.argv[1:] == ["importlib.metadata"]:
    found = {point.name for point in importlib.metadata.entry_points(group="cleanroom.plugins")}
else:
    found = {entry.name for entry in discovery.installed()}
seconds = time.perf_counter() - began

assert "postgres" in found
number = sum(1 for _ in importlib.metadata.distributions())
print(json.dumps({"seconds": seconds, "distributions": number}))
