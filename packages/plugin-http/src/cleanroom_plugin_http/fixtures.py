"""The fixture `http_service`.

Nothing is imported here until a test asks: this module is loaded in every pytest run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cleanroom_plugin_http import HttpService
    from cleanroom_runtime.fixtures import ServiceFixtures


@pytest.fixture(scope="session")
def http_service(cleanroom_services: ServiceFixtures) -> Iterator[HttpService]:
    """The declared HTTP service: `.handle`, `.url` and `.session`."""
    handle = cleanroom_services.start("http")
    from cleanroom_plugin_http import HttpService

    service = HttpService(handle)
    yield service
    service.close()
