"""The HTTP plugin: an API from a local command."""

import sys

import requests

from cleanroom import CleanroomEnvironment, HealthStatus
from cleanroom_plugin_http import HttpPlugin

command = [sys.executable, "-m", "http.server", "{port}", "--bind", "{host}"]
plugin = HttpPlugin("api", command=command).with_health_check("/", 200)
with CleanroomEnvironment().register(plugin) as env:
    handle = env["api"]
    assert requests.get(handle.url, timeout=10).ok
    assert env.health() == {"api": HealthStatus.HEALTHY}
assert plugin.health_check(handle) is not HealthStatus.HEALTHY
