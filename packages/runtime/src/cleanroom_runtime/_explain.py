"""What is said of a service when a test fails, or cannot be given a slice of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cleanroom import ServiceHandle, ServicePlugin

_LOG_LINES = 40


@contextmanager
def explained(plugin: ServicePlugin, handle: ServiceHandle) -> Iterator[None]:
    """Say of an error while a slice is leased or let go of which service it comes from.

    Raises:
        CleanroomError: In place of any other error, warnings aside.
    """
    from cleanroom import CleanroomError, HealthStatus, ServiceError

    try:
        yield
    except CleanroomError as exc:
        exc.service = exc.service or handle.service_name
        raise
    except Warning:
        raise  # the user wants warnings to be errors
    except Exception as exc:
        if plugin.health_check(handle) is HealthStatus.HEALTHY:
            raise ServiceError(
                f"it runs, and could not be made clean: {type(exc).__name__}: {exc}".strip(),
                service=handle.service_name,
                backend=handle.metadata.get("backend"),
                hint="undo what keeps it from that: a setting, what its user may do, or what "
                "the test before left running",
            ) from exc
        raise ServiceError(
            f"it stopped working during the session: {type(exc).__name__}: {exc}".strip(),
            service=handle.service_name,
            backend=handle.metadata.get("backend"),
            log_tail=log_tail(plugin, handle, _LOG_LINES) or None,
            hint="what ended it was not the run: see its log, and what the tests before did",
        ) from exc


def log_tail(plugin: ServicePlugin, handle: ServiceHandle, lines: int) -> str:
    """The last lines of a service's log, or why they cannot be read: a report must not fail."""
    from cleanroom import SupportsLogs

    if not isinstance(plugin, SupportsLogs):
        return ""
    try:
        return plugin.logs(handle, lines)
    except Exception as exc:  # noqa: BLE001 - whatever a plugin does
        return f"(its log cannot be read: {exc!r})"
