"""The plugin keeps what the protocol promises, on every backend that this machine has."""

from __future__ import annotations

import pytest
from cleanroom import CleanroomError
from cleanroom.testing import PluginConformance
from cleanroom_runtime import BackendChoice

from {{ cookiecutter.package }} import {{ cookiecutter.__class }}Plugin


class Test{{ cookiecutter.__class }}Plugin(PluginConformance):
    @pytest.fixture(params=[{% if cookiecutter.server %}"process", {% endif %}"container"])
    def plugin(self, request: pytest.FixtureRequest) -> {{ cookiecutter.__class }}Plugin:
        backend: BackendChoice = request.param
        plugin = {{ cookiecutter.__class }}Plugin(backend=backend)
        try:
            plugin.choose()
        except CleanroomError as error:
            pytest.skip(str(error))
        return plugin
