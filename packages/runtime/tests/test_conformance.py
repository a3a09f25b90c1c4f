"""Any image keeps what the protocol promises."""

from __future__ import annotations

from typing import ClassVar

import pytest

from cleanroom.testing import PluginConformance
from cleanroom_runtime import ContainerPlugin


@pytest.mark.slow
class TestContainerPlugin(PluginConformance):
    wrong_arguments: ClassVar = {
        "memory": "much",
        "cpus": -1,
        "scheme": "no scheme",
        "pull": "perhaps",
    }

    @pytest.fixture
    def plugin(self, http_image: str) -> ContainerPlugin:
        return ContainerPlugin("api", http_image, ports=[8080], env={"API_TOKEN": "correct-horse"})
