"""What a service plugin is, and what it hands out: the vocabulary every package shares."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from cleanroom._errors import InternalError
from cleanroom._secrets import hide_secrets

API_VERSION = 1
"""Version of the plugin protocol. A plugin class may state the one it was written for."""


class HealthStatus(enum.Enum):
    """Whether a service works, as seen by the one who asked just now."""

    HEALTHY = "healthy"
    """The service answered the question its plugin puts to it."""
    UNHEALTHY = "unhealthy"
    """The service is down, stopped, paused, or answered wrongly."""
    UNKNOWN = "unknown"
    """The plugin cannot tell: a handle of no service it knows, or an engine that is silent."""


@dataclass(frozen=True, slots=True, repr=False)
class ServiceHandle:
    """A started service: who it is and how to reach it.

    Handles are plain data. They can be sent to another process with `to_json` and used there,
    because whose handle it is depends on `id` alone, not on the object that made it.

    Attributes:
        id: Identifies the service within its run, and the run itself.
        service_name: The name given to the plugin, for instance `"testdb"`.
        metadata: Read-only facts about the service: `backend`, `backend_reason`, `version`,
            `host`, `port`, `url`, and what its backend and plugin add.
    """

    id: str
    service_name: str
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        """Freeze the metadata, so that nobody changes what others rely on."""
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))

    @property
    def url(self) -> str:
        """The address clients use, credentials included."""
        return self.require("url")

    @property
    def host(self) -> str:
        """Host name or IP address, as reachable from this process."""
        return self.require("host")

    @property
    def port(self) -> int:
        """TCP port, as reachable from this process."""
        value = self.require("port")
        try:
            return int(value)
        except ValueError as exc:
            raise InternalError(
                f"metadata key 'port' is not a number: {value!r}", service=self.service_name
            ) from exc

    def require(self, key: str) -> str:
        """Return the metadata value of `key`.

        Raises:
            InternalError: The service did not provide the key; names the service and the key.
        """
        try:
            return self.metadata[key]
        except KeyError:
            raise InternalError(
                f"metadata has no key {key!r}",
                service=self.service_name,
                hint=f"it has: {', '.join(sorted(self.metadata)) or 'nothing'}",
            ) from None

    def to_json(self) -> str:
        """Return the handle as one line of JSON, secrets included: give it to nobody else."""
        return json.dumps(
            {"id": self.id, "service_name": self.service_name, "metadata": dict(self.metadata)}
        )

    @classmethod
    def from_json(cls, text: str) -> ServiceHandle:
        """Make the handle that `to_json` wrote.

        Raises:
            InternalError: `text` is not such a handle.
        """
        try:
            data = json.loads(text)
            metadata = {str(key): str(value) for key, value in data["metadata"].items()}
            return cls(str(data["id"]), str(data["service_name"]), metadata)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise InternalError("not a service handle in JSON") from exc

    def __hash__(self) -> int:
        """Hash by identity of the service."""
        return hash((self.id, self.service_name))

    def __reduce__(self) -> tuple[object, ...]:
        """Support pickling, which a read-only mapping alone does not."""
        return (ServiceHandle, (self.id, self.service_name, dict(self.metadata)))

    def __repr__(self) -> str:
        """Show everything but secrets."""
        shown = {key: hide_secrets(key, value) for key, value in sorted(self.metadata.items())}
        return (
            f"ServiceHandle(id={self.id!r}, service_name={self.service_name!r}, metadata={shown!r})"
        )


@runtime_checkable
class ServicePlugin(Protocol):
    """One kind of service, set up and ready to be started. Synchronous by design.

    Anything with these four members is a plugin; no base class is needed. What more a service
    can do is said by further protocols: `SupportsIsolation`, `SupportsLogs`.
    """

    @property
    def name(self) -> str:
        """The service's name, unique within an environment."""
        ...

    def start(self) -> ServiceHandle:
        """Start the service and return once it answers.

        Raises:
            CleanroomError: It could not be started; nothing is left of the attempt.
        """
        ...

    def stop(self, handle: ServiceHandle) -> None:
        """Stop the service and return once it is gone. Stopping twice is fine.

        Raises:
            CleanroomError: The handle is not of a service of ours, or the service would not go.
        """
        ...

    def health_check(self, handle: ServiceHandle) -> HealthStatus:
        """Ask the service how it is, within a bound of 2 seconds unless set otherwise.

        Does not raise because a service is down or hangs: that is `UNHEALTHY`.
        """
        ...


@runtime_checkable
class SupportsIsolation(Protocol):
    """A service that can give one test a clean slice of itself."""

    def isolate(self, handle: ServiceHandle) -> AbstractContextManager[ServiceHandle]:
        """Lease a clean slice for the duration of the context.

        The slice's handle has the same shape as the service's own. Name and URL of a slice stay
        the same from one lease to the next within one worker.
        """
        ...


@runtime_checkable
class SupportsLogs(Protocol):
    """A service whose output can be read."""

    def logs(self, handle: ServiceHandle, tail: int = 100) -> str:
        """Return the last `tail` lines the service wrote, secrets removed."""
        ...


def missing_members(plugin: object) -> list[str]:
    """Return those of the four members that `plugin` lacks: an object, or a class of them."""
    own = () if isinstance(plugin, type) else ("name",)  # A class may set it when it is called.
    return [name for name in (*own, "start", "stop", "health_check") if not hasattr(plugin, name)]
