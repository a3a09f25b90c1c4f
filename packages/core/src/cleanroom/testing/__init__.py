"""The conformance kit: checks that a service plugin keeps what the protocol promises.

Derive from `PluginConformance`, fill in one fixture, and run pytest::

    import pytest
    from cleanroom.testing import PluginConformance

    from my_plugin import BoxPlugin


    class TestBox(PluginConformance):
        @pytest.fixture
        def plugin(self) -> BoxPlugin:
            return BoxPlugin("box", password="correct-horse")

This is the only part of cleanroom-core that imports pytest; the extra `testing` brings it, and the
OpenTelemetry SDK with which spans are checked.
"""

from __future__ import annotations

from cleanroom.testing._conformance import PluginConformance
from cleanroom.testing._service import Service, Services

__all__ = ["PluginConformance", "Service", "Services"]
