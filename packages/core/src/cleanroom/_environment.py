"""Several services together, by name: started when asked for, stopped in the right order."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextvars import copy_context
from types import MappingProxyType
from typing import Self

from cleanroom import spans
from cleanroom._errors import ConfigurationError, ValidationError, nearest
from cleanroom._protocol import HealthStatus, ServiceHandle, ServicePlugin
from cleanroom._secrets import scrub
from cleanroom._starting import Running, Service, Start, ask, check_members, stop_each


class CleanroomEnvironment:
    """Services that belong together. Its methods may be called from any thread.

    Entering the context starts nothing: `env["db"]` starts `db` and what it depends on, once.
    Leaving the context stops everything.
    """

    def __init__(self) -> None:
        self._services: dict[str, Service] = {}
        self._running: dict[str, Running] = {}  # In the order in which they came up.
        self._lock = threading.RLock()  # Held while services start or stop.

    @classmethod
    def from_config(cls, path: str | os.PathLike[str] | None = None) -> Self:
        """Make the environment of the declared services, which `cleanroom.config` reads.

        Args:
            path: The file, or the folder to search from, upwards; by default the current one.

        Raises:
            ConfigurationError: Nothing is declared, or a declaration is wrong.
        """
        from cleanroom.config import load_config

        environment = cls()
        for service in load_config(path):
            service.check()
            environment.declare(service.name, service.build, service.depends_on)
        if not environment._services:
            hint = "add a table [tool.cleanroom.services.NAME] to pyproject.toml"
            raise ConfigurationError(f"no service is declared in {path or os.getcwd()}", hint=hint)
        return environment

    def register(self, plugin: ServicePlugin, depends_on: Iterable[str] = ()) -> Self:
        """Add a plugin, whose service starts after those named in `depends_on`.

        Raises:
            ValidationError: It lacks one of the four members, or its name is taken.
        """
        check_members(plugin)

        def build(handles: Mapping[str, ServiceHandle]) -> ServicePlugin:
            return plugin

        return self._add(Service(plugin.name, build, _names(depends_on), ready=True))

    def declare(
        self,
        name: str,
        build: Callable[[Mapping[str, ServiceHandle]], ServicePlugin],
        depends_on: Iterable[str] = (),
    ) -> Self:
        """Add a service whose plugin, of the same name, `build` makes right before each start.

        `build` gets the handles of the services in `depends_on`, by name.

        Raises:
            ValidationError: The name is taken.
        """
        return self._add(Service(name, build, needed := _names(depends_on), ready=not needed))

    def start(self, name: str) -> ServiceHandle:
        """Start a service and what it depends on, unless they run, and return its handle.

        Raises:
            ConfigurationError: It is unknown, in a cycle, or a validator objects.
            Exception: What a plugin raised, after the others of this start were stopped again.
        """
        return self._get(name)[1]

    __getitem__ = start

    def start_all(self) -> Mapping[str, ServiceHandle]:
        """Start every service and return all handles by name. Raises what `start` raises."""
        self._ensure(self._services)
        return self.services

    def stop(self, name: str) -> None:
        """Stop a service, those that depend on it first. Stopping twice is fine.

        Raises:
            Exception: What a plugin raised; the others were stopped nevertheless.
        """
        doomed = {self._service(name).name}
        while more := {s.name for s in self._services.values() if doomed & {*s.needs}} - doomed:
            doomed |= more
        self._stop(doomed)

    def stop_all(self) -> None:
        """Stop every service, dependents first. Raises what `stop` raises."""
        self._stop(self._services)

    def health(self) -> Mapping[str, HealthStatus]:
        """Ask every running service how it is, all at the same time."""
        from concurrent.futures import ThreadPoolExecutor

        running = self._running.copy()
        with ThreadPoolExecutor(max(1, len(running)), "cleanroom-health") as pool:
            answers = {
                name: pool.submit(copy_context().run, ask, plugin, handle)
                for name, (plugin, handle) in running.items()
            }
        return {name: answer.result() for name, answer in answers.items()}

    @property
    def services(self) -> Mapping[str, ServiceHandle]:
        """The handles of the running services by name, as of now; read-only."""
        return MappingProxyType({name: pair[1] for name, pair in self._running.copy().items()})

    def plugin(self, name: str) -> ServicePlugin:
        """Return the plugin of a service, which is started if need be. Raises as `start`."""
        return self._get(name)[0]

    @staticmethod
    def given_up() -> bool:
        """Whether the start that this thread is part of was interrupted, or failed elsewhere.

        A plugin that waits long in `start` asks this, so as to raise early.
        """
        start = Start.current.get()
        return start is not None and start.given_up.is_set()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of all services, running or not, as they were added."""
        return iter(tuple(self._services))

    def __enter__(self) -> Self:
        """Enter the context. Nothing starts yet."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Stop every service. If the body raised, a stop error becomes a note on its error."""
        try:
            self.stop_all()
        except Exception as exc:
            if error is None:
                raise
            error.add_note(scrub(f"stopping the services failed as well: {exc}"))

    def _add(self, service: Service) -> Self:
        if self._services.setdefault(service.name, service) is not service:
            raise ValidationError(f"name {service.name!r} is taken by another service")
        return self

    def _service(self, name: str, needed_by: str | None = None) -> Service:
        if name not in self._services:
            hint = nearest(name, self._services)
            what = f"depends on {name!r}, which is no service" if needed_by else "no such service"
            raise ConfigurationError(what, service=needed_by or name, hint=hint)
        return self._services[name]

    def _get(self, name: str) -> Running:
        return self._running.get(name) or self._ensure([name])[name]

    def _ensure(self, names: Collection[str]) -> dict[str, Running]:
        """Start what does not run yet, and return what does then."""
        if (start := self._start_under_way()) is not None:
            known = {**self._running, **start.started}
            if missing := [name for name in names if name not in known]:
                hint = "name it in depends_on of the service that asks for it"
                raise ConfigurationError(f"{missing[0]!r} was asked for by a start", hint=hint)
            return known
        with self._lock:
            idle = [s for s in self._in_order(names) if s.name not in self._running]
            if idle:
                start = Start(idle, self._running)
                try:
                    with spans.environment_start_span():
                        start.run()
                finally:
                    self._running.update(start.started)
            return self._running.copy()

    def _stop(self, names: Collection[str]) -> None:
        if self._start_under_way() is not None:
            raise ConfigurationError("a service cannot be stopped from within a start")
        with self._lock:
            doomed = [name for name in reversed(self._running) if name in names]
            if not doomed:
                return
            with spans.environment_stop_span():
                errors = stop_each(doomed, self._running)
                for first in errors.values():
                    for name, other in errors.items():
                        first.add_note(scrub(f"stopping {name!r}: {other!r}"))
                    raise first

    def _start_under_way(self) -> Start | None:
        """Return the start that this thread is part of: it holds the lock in another one."""
        start = Start.current.get()
        return start if start and start.running is self._running and start.active else None

    def _in_order(self, names: Iterable[str]) -> list[Service]:
        """Return the services and what they need, each after what it needs."""
        order: dict[str, Service] = {}

        def visit(name: str, *path: str) -> None:
            if name in path:
                circle = " -> ".join((*path[path.index(name) :], name))
                raise ConfigurationError(f"services depend on each other in a circle: {circle}")
            if name not in order:
                service = self._service(name, path[-1] if path else None)
                for needed in service.needs:
                    visit(needed, *path, name)
                order[name] = service

        for name in names:
            visit(name)
        return list(order.values())


def _names(depends_on: Iterable[str]) -> tuple[str, ...]:
    if isinstance(depends_on, str):
        raise ValidationError(f"depends_on is the text {depends_on!r}: give a list of names")
    return tuple(depends_on)
