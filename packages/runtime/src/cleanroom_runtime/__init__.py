"""How services run: as a local process, in a container, or on a server somebody else runs.

`ContainerPlugin` runs any image. Plugin authors derive from `BasePlugin`, for which the module
`probes` has questions to ask. Everything is imported when it is first used, because this package is
imported at the start of every pytest run.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cleanroom_runtime._cache import BusyError, cached_directory
    from cleanroom_runtime._container_plugin import ContainerPlugin
    from cleanroom_runtime._container_spec import ContainerSpec
    from cleanroom_runtime._hiding import hider
    from cleanroom_runtime._inside import ExecResult
    from cleanroom_runtime._installed import ask_program, installed_servers
    from cleanroom_runtime._plugin import BasePlugin
    from cleanroom_runtime._process import run_program
    from cleanroom_runtime._ready import NotReturnedError, call_within
    from cleanroom_runtime._replaced import Replaced
    from cleanroom_runtime._run import current_run, run_of
    from cleanroom_runtime._specs import (
        Backend,
        BackendChoice,
        Endpoint,
        LocalServer,
        ProcessSpec,
        Workspace,
    )

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "BackendChoice",
    "BasePlugin",
    "BusyError",
    "ContainerPlugin",
    "ContainerSpec",
    "Endpoint",
    "ExecResult",
    "LocalServer",
    "NotReturnedError",
    "ProcessSpec",
    "Replaced",
    "Workspace",
    "ask_program",
    "cached_directory",
    "call_within",
    "current_run",
    "hider",
    "installed_servers",
    "run_of",
    "run_program",
]

_ELSEWHERE = {
    "BasePlugin": "_plugin",
    "BusyError": "_cache",
    "ContainerPlugin": "_container_plugin",
    "ContainerSpec": "_container_spec",
    "ExecResult": "_inside",
    "NotReturnedError": "_ready",
    "Replaced": "_replaced",
    "ask_program": "_installed",
    "cached_directory": "_cache",
    "call_within": "_ready",
    "current_run": "_run",
    "hider": "_hiding",
    "installed_servers": "_installed",
    "run_of": "_run",
    "run_program": "_process",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_ELSEWHERE.get(name, '_specs')}")
    return getattr(module, name)
