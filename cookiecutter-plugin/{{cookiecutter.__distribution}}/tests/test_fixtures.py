"""What tests are given by pytest."""

from __future__ import annotations

import socket

from cleanroom import ServiceHandle


def test_service_listens(
    {{ cookiecutter.__snake }}_service: ServiceHandle,
) -> None:
    """The fixture gives the handle of a server that takes connections."""
    address = {{ cookiecutter.__snake }}_service.host, {{ cookiecutter.__snake }}_service.port
    with socket.create_connection(address, timeout=5):
        assert str({{ cookiecutter.__snake }}_service.port) in {{ cookiecutter.__snake }}_service.url


def test_services_do_not_meet(
    {{ cookiecutter.__snake }}_service: ServiceHandle,
    second_{{ cookiecutter.__snake }}: ServiceHandle,
) -> None:
    """Fixtures that are made for another service give another server."""
    assert second_{{ cookiecutter.__snake }}.url != {{ cookiecutter.__snake }}_service.url
