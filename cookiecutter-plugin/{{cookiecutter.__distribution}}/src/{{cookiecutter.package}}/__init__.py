"""{{ cookiecutter.__title }} for tests: a real server, started once per run."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from {{ cookiecutter.package }}._fixtures import {{ cookiecutter.__snake }}_fixtures
    from {{ cookiecutter.package }}._plugin import {{ cookiecutter.__class }}Plugin

__version__ = "0.1.0"

__all__ = ["{{ cookiecutter.__class }}Plugin", "{{ cookiecutter.__snake }}_fixtures"]

_ELSEWHERE = {
    "{{ cookiecutter.__class }}Plugin": "_plugin",
    "{{ cookiecutter.__snake }}_fixtures": "_fixtures",
}


def __getattr__(name: str) -> object:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ELSEWHERE[name]}"), name)
