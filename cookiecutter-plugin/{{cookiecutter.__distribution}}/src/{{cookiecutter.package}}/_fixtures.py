"""Making fixtures like `{{ cookiecutter.__snake }}_service`, for any service.

Whoever imports this module for a `conftest.py` imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import pytest
from cleanroom_runtime.fixtures import ServiceFixtures, chosen, name_of, several

if TYPE_CHECKING:
    from cleanroom import ServiceHandle

    from {{ cookiecutter.package }} import {{ cookiecutter.__class }}Plugin


class {{ cookiecutter.__class }}Fixtures(NamedTuple):
    """Fixtures of one service, to be given names in a `conftest.py`.

    Attributes:
        service: The handle of the server, for the session.
    """

    service: Callable[..., ServiceHandle]


def {{ cookiecutter.__snake }}_fixtures(
    *services: str | {{ cookiecutter.__class }}Plugin,
) -> {{ cookiecutter.__class }}Fixtures:
    """Make fixtures like `{{ cookiecutter.__snake }}_service`.

    Args:
        services: The name of a declared service, or a plugin for one that is not declared. By
            default the one that `{{ cookiecutter.__snake }}_service` serves. Of several, each in
            turn: who asks for the fixture is run with each of them.
    """

    @pytest.fixture(scope="session", params=several(services), ids=name_of)
    def service(
        request: pytest.FixtureRequest, cleanroom_services: ServiceFixtures
    ) -> ServiceHandle:
        """The handle of the run's server."""
        return cleanroom_services.start("{{ cookiecutter.service }}", chosen(request, services))

    return {{ cookiecutter.__class }}Fixtures(service)
