"""Core alone: an environment runs plugins that are written by hand, and nothing heavy is there."""

import sys

from cleanroom import CleanroomEnvironment, HealthStatus, PluginError, ServiceHandle, discovery


class Box:
    def __init__(self, name: str) -> None:
        self.name = name
        self.running = False

    def start(self) -> ServiceHandle:
        self.running = True
        return ServiceHandle("1", self.name, {"url": f"box://{self.name}"})

    def stop(self, handle: ServiceHandle) -> None:
        self.running = False

    def health_check(self, handle: ServiceHandle) -> HealthStatus:
        return HealthStatus.HEALTHY if self.running else HealthStatus.UNHEALTHY


box, lid = Box("box"), Box("lid")
with CleanroomEnvironment().register(box).register(lid, depends_on=["box"]) as env:
    assert env["lid"].url == "box://lid"
    assert set(env.health().values()) == {HealthStatus.HEALTHY}, env.health()
    assert box.running
assert not box.running
assert not lid.running

assert discovery.installed() == []
message = ""
try:
    discovery.load_plugin("postgres")
except PluginError as error:
    message = str(error)
assert 'pip install "cleanroom-plugin-postgres"' in message, message
for heavy in ("cleanroom_runtime", "testcontainers", "docker", "requests", "pytest"):
    assert heavy not in sys.modules, heavy
