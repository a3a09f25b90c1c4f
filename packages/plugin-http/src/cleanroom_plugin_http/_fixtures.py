"""Making fixtures like `http_service`, for any service.

Whoever imports this module for a `conftest.py` imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import pytest

from cleanroom_runtime.fixtures import Scope, ServiceFixtures, chosen, name_of, several

if TYPE_CHECKING:
    from cleanroom_plugin_http import HttpPlugin, HttpService


class HttpFixtures(NamedTuple):
    """Fixtures of one HTTP service, to be given names in a `conftest.py`.

    Attributes:
        service: The service: `.handle`, `.url` and `.session`.
    """

    service: Callable[..., Iterator[HttpService]]


def http_fixtures(*services: str | HttpPlugin, scope: Scope = "session") -> HttpFixtures:
    """Make fixtures like `http_service`.

    Assign them to names in a `conftest.py`::

        admin_service = http_fixtures("admin").service

    Args:
        services: The name of a declared service, or an `HttpPlugin` for one that is not declared.
            By default the one that `http_service` serves. Of several, each in turn: who asks for
            the fixture is run with each of them.
        scope: How long one `.session` is used, with its cookies. The service itself runs for the
            whole session.
    """

    @pytest.fixture(scope=scope, params=several(services), ids=name_of)
    def service(
        request: pytest.FixtureRequest, cleanroom_services: ServiceFixtures
    ) -> Iterator[HttpService]:
        """The HTTP service: `.handle`, `.url` and `.session`."""
        handle = cleanroom_services.start("http", chosen(request, services))
        from cleanroom_plugin_http import HttpService

        service = HttpService(handle)
        yield service
        service.close()

    return HttpFixtures(service)
