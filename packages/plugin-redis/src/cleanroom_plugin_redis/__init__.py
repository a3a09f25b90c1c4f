"""Redis or Valkey for tests: a real server, and an empty database for every test."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cleanroom_plugin_redis._database import Database
    from cleanroom_plugin_redis._fixtures import redis_fixtures
    from cleanroom_plugin_redis._plugin import RedisPlugin

__version__ = "0.1.0"

__all__ = ["Database", "RedisPlugin", "redis_fixtures"]

_ELSEWHERE = {"Database": "_database", "RedisPlugin": "_plugin", "redis_fixtures": "_fixtures"}


def __getattr__(name: str) -> object:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ELSEWHERE[name]}"), name)
