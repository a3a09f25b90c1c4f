"""PostgreSQL for tests: a real server, and a clean database for every test."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._database import Database, Template
    from cleanroom_plugin_postgres._fixtures import postgres_fixtures
    from cleanroom_plugin_postgres._isolation import NotIsolatedWarning
    from cleanroom_plugin_postgres._plugin import PostgresPlugin
    from cleanroom_plugin_postgres._template import template

__version__ = "0.1.0"

__all__ = [
    "Database",
    "NotIsolatedWarning",
    "PostgresPlugin",
    "Template",
    "postgres_fixtures",
    "template",
]

_ELSEWHERE = {
    "Database": "_database",
    "NotIsolatedWarning": "_isolation",
    "PostgresPlugin": "_plugin",
    "Template": "_database",
    "postgres_fixtures": "_fixtures",
    "template": "_template",
}


def __getattr__(name: str) -> object:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ELSEWHERE[name]}"), name)
