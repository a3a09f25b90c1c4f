"""An API from an image, and which of image and command runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import requests

from cleanroom import HealthStatus, ServiceError, ServiceHandle, StartTimeoutError
from cleanroom_plugin_http import HttpPlugin, HttpService
from cleanroom_runtime import ContainerSpec
from tests.leftovers import left_of_service

Start = Callable[[HttpPlugin], ServiceHandle]


def test_the_reference_example(http_image: str) -> None:
    """An image with its port starts, is healthy, and leaves nothing when it is stopped."""
    plugin = HttpPlugin("api", http_image, port=8080).with_health_check("/health", "OK")
    handle = plugin.start()
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    facts = handle.metadata
    assert (facts["backend"], facts["image"], facts["version"]) == (
        "container", http_image, "unknown",
    )  # fmt: skip
    assert handle.url == f"http://{handle.host}:{handle.port}"
    service = HttpService(handle)
    assert service.session.get("/health").text == "OK"
    service.close()
    assert "GET /health" in plugin.logs(handle)
    assert left_of_service(handle.id, engine=True)
    plugin.stop(handle)
    assert left_of_service(handle.id, engine=True) == []
    assert plugin.health_check(handle) is HealthStatus.UNHEALTHY


def test_it_is_told_where_to_listen(http_image: str, start: Start) -> None:
    """`{port}` and `{host}` are those inside the container, in command and environment."""
    code = "import runpy, sys; print(sys.argv); runpy.run_path('/srv/server.py')"
    plugin = HttpPlugin(
        "api",
        http_image,
        port=9123,
        command=["-u", "-c", code, "{host}:{port}"],
        env={"AT": "{host}:{port}"},
    )
    handle = start(plugin.with_health_check())
    assert requests.get(f"{handle.url}/env/AT", timeout=5).text == "0.0.0.0:9123"
    assert requests.get(f"{handle.url}/env/PORT", timeout=5).text == "9123"
    assert "['-c', '0.0.0.0:9123']" in plugin.logs(handle)


def test_unhealthy_when_killed(http_image: str, start: Start) -> None:
    """A killed container is unhealthy."""
    plugin = HttpPlugin("api", http_image, port=8080).with_health_check()
    handle = start(plugin)
    plugin.kill(handle)
    assert plugin.health_check(handle) is HealthStatus.UNHEALTHY


def test_it_listens_on_another_port(http_image: str) -> None:
    """The ports that the image exposes are named where another one was given."""
    plugin = HttpPlugin("api", http_image, port=9000, env={"PORT": "8080"}, start_timeout=3)
    with pytest.raises(StartTimeoutError) as caught:
        plugin.with_health_check().start()
    hint = str(caught.value.hint)
    assert "nothing listens on port 9000 inside the container, but on 8080; " in hint
    assert "the image exposes port 8080, and on 9000 it was expected to listen" in hint
    assert "listening on port 8080" in str(caught.value.log_tail)


@pytest.mark.parametrize("tool", ["", "import os; os.remove('/usr/bin/cat'); "])
def test_it_listens_at_its_loopback_address(http_image: str, tool: str) -> None:
    """It is told to listen where it is reached; where the container cannot tell, it is a guess."""
    serve = "from http import server as s; s.test(s.SimpleHTTPRequestHandler, port=8080, bind={!r})"
    command = ["-c", tool + serve.format("127.0.0.1")]
    plugin = HttpPlugin("api", http_image, port=8080, command=command, start_timeout=2)
    root = _Root("api", http_image, port=8080, command=command, start_timeout=2)
    with pytest.raises(StartTimeoutError) as caught:
        (root if tool else plugin).start()
    if tool:
        says = "nothing listens on port 8080 inside the container, or only at 127.0.0.1 there"
    else:
        says = "port 8080 is listened on inside the container at 127.0.0.1 only"
    assert str(caught.value.hint).startswith(says)


class _Root(HttpPlugin):
    """Runs as root in its container."""

    def container(self, image: str) -> ContainerSpec:
        return replace(super().container(image), user="0")


def test_it_exits_at_once(http_image: str) -> None:
    """Waiting ends with the container, whose exit code and last words are shown."""
    command = ["-c", "raise SystemExit('no goods')"]
    plugin = HttpPlugin("api", http_image, port=8080, command=command, start_timeout=50)
    with pytest.raises(ServiceError, match=r"ended .*exit code 1") as caught:
        plugin.start()
    assert "no goods" in str(caught.value.log_tail)


def test_image_and_command(
    http_image: str, command: Callable[..., list[str]], start: Start
) -> None:
    """Where both are given, the image runs if an engine answers."""
    code = "import runpy; runpy.run_path('/srv/server.py')"
    plugin = HttpPlugin("api", http_image, port=8080, command=["-c", code])
    handle = start(plugin.with_health_check())
    assert handle.require("backend") == "container"


def test_image_and_command_without_an_engine(
    no_engine: None, command: Callable[..., list[str]], start: Start
) -> None:
    """Where both are given and no engine answers, the command runs, and the reason says so."""
    plugin = HttpPlugin("api", "acme/my-api:1", port=8080, command=command())
    handle = start(plugin.with_health_check())
    assert handle.require("backend") == "process"
    reason = handle.require("backend_reason")
    assert reason == "no container engine answers: its command stands in for acme/my-api:1"
