"""Your own HTTP API as a service for tests, from an image or a local command."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cleanroom_plugin_http._fixtures import http_fixtures
    from cleanroom_plugin_http._plugin import HttpPlugin
    from cleanroom_plugin_http._service import HttpService
    from cleanroom_plugin_http._session import ServiceSession

__version__ = "0.1.0"

__all__ = ["HttpPlugin", "HttpService", "ServiceSession", "http_fixtures"]

_ELSEWHERE = {
    "HttpPlugin": "_plugin",
    "HttpService": "_service",
    "ServiceSession": "_session",
    "http_fixtures": "_fixtures",
}


def __getattr__(name: str) -> object:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ELSEWHERE[name]}"), name)
