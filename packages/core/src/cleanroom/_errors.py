"""The one family of errors.

::

    CleanroomError
    ├── ConfigurationError      a setting or declaration is wrong
    ├── ValidationError         a constructor argument is wrong (also a ValueError)
    ├── PluginError             a plugin is missing, broken, duplicate or of another API version
    ├── ServiceError            a service did not do what it should
    │   ├── StartTimeoutError   it was not ready in time
    │   ├── ContainerError      its container, image or engine failed
    │   └── ProcessError        its process or program failed
    └── InternalError           a contract between our own parts was broken
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from cleanroom._secrets import scrub

_CONTEXT = ("service", "plugin", "backend", "log_tail", "hint")


class CleanroomError(Exception):
    """Base of every error this project raises on purpose.

    Args:
        message: What happened. Passwords in URLs are hidden.
        service: Name of the service concerned.
        plugin: Name of the plugin or distribution concerned.
        backend: The backend in use: `"process"`, `"container"` or `"external"`.
        log_tail: The last lines the service wrote.
        hint: What to do about it.
    """

    _registry: ClassVar[dict[str, type[CleanroomError]]] = {}

    def __init_subclass__(cls) -> None:
        """Register the class, so that `from_dict` finds it by name."""
        super().__init_subclass__()
        CleanroomError._registry.setdefault(cls.__name__, cls)

    def __init__(
        self,
        message: str,
        *,
        service: str | None = None,
        plugin: str | None = None,
        backend: str | None = None,
        log_tail: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.message = scrub(message)
        self.service = service
        self.plugin = plugin
        self.backend = backend
        self.log_tail = scrub(log_tail) if log_tail else None
        self.hint = scrub(hint) if hint else None
        super().__init__(self.message)

    def __str__(self) -> str:
        """Say what happened, to which service, what to do, and what the service wrote last."""
        who = f"service {self.service!r}" if self.service else ""
        if self.backend:
            who = f"{who} ({self.backend})" if who else self.backend
        if self.plugin:
            who = f"{who}, plugin {self.plugin!r}" if who else f"plugin {self.plugin!r}"
        lines = [f"{who}: {self.message}" if who else self.message]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        if self.log_tail:
            lines.append("  last lines of its log:")
            lines.extend(f"    {line}" for line in self.log_tail.rstrip().splitlines())
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        """Support pickling, keyword arguments included."""
        return (_rebuild, (type(self), self.to_dict()))

    def to_dict(self) -> dict[str, str]:
        """Return the error as plain data, for another process to raise with `from_dict`."""
        context = {key: getattr(self, key) for key in _CONTEXT}
        kept = {key: value for key, value in context.items() if value is not None}
        return {"type": type(self).__name__, "message": self.message, **kept}

    @classmethod
    def from_dict(cls, data: dict[str, str]) -> CleanroomError:
        """Make the error that `to_dict` described; one of an unknown type becomes the base."""
        return _rebuild(cls._registry.get(data.get("type", ""), CleanroomError), data)


def _rebuild(kind: type[CleanroomError], data: dict[str, str]) -> CleanroomError:
    error = kind.__new__(kind)
    context = {key: data.get(key) for key in _CONTEXT}
    CleanroomError.__init__(error, data.get("message", ""), **context)
    return error


class ConfigurationError(CleanroomError):
    """A setting, an environment variable or a declaration is wrong."""


class ValidationError(CleanroomError, ValueError):
    """A constructor argument is wrong. The message names the argument and the value."""


class PluginError(CleanroomError):
    """A plugin was not found, failed to load, is claimed twice, or has another API version."""


class ServiceError(CleanroomError):
    """A service did not do what it should."""


class StartTimeoutError(ServiceError):
    """A service was not ready in time. The message holds the last thing that went wrong."""


class ContainerError(ServiceError):
    """A container, its image or the engine failed."""


class ProcessError(ServiceError):
    """A server process or its program failed."""


class InternalError(CleanroomError):
    """A contract between parts was broken: a bug, ours or a plugin's."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown `word`: the nearest known one, or all that are known."""
    import difflib

    names = sorted(known)
    if close := difflib.get_close_matches(word, names, n=1):
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}" if names else "none is known"


def log_failure(what: str, error: Exception) -> None:
    """Log an error that must not stop anything: `filterwarnings = error` would make it do so."""
    import logging

    text = scrub(f"{what} raised {type(error).__name__}: {error}")
    logging.getLogger("cleanroom").warning(text)
