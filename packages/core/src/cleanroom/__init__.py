"""The vocabulary of cleanroom: what a service plugin is, its errors, spans and environment."""

from __future__ import annotations

from cleanroom import spans
from cleanroom._environment import CleanroomEnvironment
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
