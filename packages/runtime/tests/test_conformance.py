"""Any image keeps what the protocol promises."""

from __future__ import annotations

from typing import ClassVar

import pytest

from cleanroom.testing import PluginConformance
from cleanroom_runtime import ContainerPlugin


@pytest.mark.slow
class TestContainerPlugin(PluginConformance):
    left_out: ClassVar = dict.fromkeys(
        ("test_slice_is_clean", "test_slices_do_not_meet"), "of any image nobody knows how to"
    )
    wrong_arguments: ClassVar = {
        "memory": "much",
        "cpus": -1,
        "scheme": "no scheme",
        "pull": "perhaps",
    }

    @pytest.fixture
    def plugin(self, http_image: str) -> ContainerPlugin:
        return ContainerPlugin("api", http_image, ports=[8080], env={"API_TOKEN": "correct-horse"})
