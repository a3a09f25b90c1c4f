"""The vocabulary of cleanroom: what a service plugin is, its errors, spans and environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cleanroom._errors import (
    CleanroomError,
    ConfigurationError,
    ContainerError,
    InternalError,
    PluginError,
    ProcessError,
    ServiceError,
    StartTimeoutError,
    ValidationError,
)

if TYPE_CHECKING:
    from cleanroom import spans
    from cleanroom._environment import CleanroomEnvironment
    from cleanroom._protocol import (
        API_VERSION,
        HealthStatus,
        ServiceHandle,
        ServicePlugin,
        SupportsIsolation,
        SupportsLogs,
    )

__version__ = "0.1.0"

__all__ = [
    "API_VERSION",
    "CleanroomEnvironment",
    "CleanroomError",
    "ConfigurationError",
    "ContainerError",
    "HealthStatus",
    "InternalError",
    "PluginError",
    "ProcessError",
    "ServiceError",
    "ServiceHandle",
    "ServicePlugin",
    "StartTimeoutError",
    "SupportsIsolation",
    "SupportsLogs",
    "ValidationError",
    "spans",
]


def __getattr__(name: str) -> object:
    """Import the rest when it is used: pytest imports this package in every run."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cleanroom import _environment, _protocol

    return getattr(_protocol, name, None) or getattr(_environment, name)
