"""The plugin keeps what the protocol promises, on every backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from cleanroom import ServiceHandle
from cleanroom.testing import PluginConformance
from cleanroom_plugin_http import HttpPlugin


class TestCommand(PluginConformance):
    @pytest.fixture
    def plugin(self, command: Callable[..., Sequence[str]]) -> HttpPlugin:
        plugin = HttpPlugin("api", command=command(), env={"API_TOKEN": "correct-horse"})
        return plugin.with_health_check("/health", "OK")


class TestImage(PluginConformance):
    @pytest.fixture
    def plugin(self, http_image: str) -> HttpPlugin:
        return HttpPlugin("api", http_image, port=8080).with_health_check("/health", "OK")


class TestUrl(PluginConformance):
    @pytest.fixture
    def plugin(self, running: ServiceHandle) -> HttpPlugin:
        return HttpPlugin("theirs", url=running.url, backend="external")
