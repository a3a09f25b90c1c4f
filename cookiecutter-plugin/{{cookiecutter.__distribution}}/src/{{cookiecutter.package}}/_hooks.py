"""What the plugin adds to pytest, named for whoever loads it."""

from __future__ import annotations

from cleanroom.hooks import hookimpl


@hookimpl
def cleanroom_fixture_modules() -> str:
    """Return the module with the fixtures."""
    return "{{ cookiecutter.package }}.fixtures"
