"""The plugin keeps what the protocol promises, on every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import pytest

from cleanroom import ServiceHandle
from cleanroom.testing import PluginConformance
from cleanroom_plugin_http import HttpPlugin

NO_SLICES = dict.fromkeys(
    ("test_slice_is_clean", "test_slices_do_not_meet"), "what an API keeps is in its stores"
)


class TestCommand(PluginConformance):
    left_out: ClassVar[Mapping[str, str]] = NO_SLICES

    @pytest.fixture
    def plugin(self, command: Callable[..., Sequence[str]]) -> HttpPlugin:
        plugin = HttpPlugin("api", command=command(), env={"API_TOKEN": "correct-horse"})
        return plugin.with_health_check("/health", "OK")


class TestImage(PluginConformance):
    left_out: ClassVar[Mapping[str, str]] = NO_SLICES

    @pytest.fixture
    def plugin(self, http_image: str) -> HttpPlugin:
        return HttpPlugin("api", http_image, port=8080).with_health_check("/health", "OK")


class TestUrl(PluginConformance):
    left_out: ClassVar[Mapping[str, str]] = NO_SLICES | {
        "test_logs_are_the_services": "somebody else has them",
        "test_a_killed_service_is_unhealthy": "somebody else runs it, so nobody here can kill it",
    }

    @pytest.fixture
    def plugin(self, running: ServiceHandle) -> HttpPlugin:
        return HttpPlugin("theirs", url=running.url, backend="external")
