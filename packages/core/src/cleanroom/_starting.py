"""Starting several services, each in a thread, all of them or none; and stopping them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeAlias, cast

from cleanroom import spans
from cleanroom._errors import InternalError, ValidationError, log_failure
from cleanroom._protocol import HealthStatus, ServiceHandle, ServicePlugin, missing_members
from cleanroom._secrets import scrub

if TYPE_CHECKING:
    from concurrent.futures import Future

Running: TypeAlias = tuple[ServicePlugin, ServiceHandle]


class Service(NamedTuple):
    """A service of an environment: how its plugin is made, and what starts before it."""

    name: str
    build: Callable[[Mapping[str, ServiceHandle]], ServicePlugin]
    needs: tuple[str, ...]
    ready: bool
    """Whether its plugin can be built, and validated, before what it needs runs."""


class Start:
    """One start of `services`, given in order, beside those `running` already."""

    current: ClassVar[ContextVar[Start | None]] = ContextVar("cleanroom_start", default=None)

    def __init__(self, services: list[Service], running: Mapping[str, Running]) -> None:
        self.services = services
        self.running = running
        self.started: dict[str, Running] = {}
        self.active = True
        self.given_up = threading.Event()
        self._plugins: dict[str, ServicePlugin] = {}
        self._errors: dict[str, BaseException] = {}

    def run(self) -> None:
        """Start them all; on an error or Ctrl-C stop again what did start, and raise."""
        token = self.current.set(self)
        try:
            for service in self.services:
                if service.ready:
                    self._guard(self._prepare, service)
            if len(self.services) == 1:
                self._start(self.services[0], [])  # In this thread, which Ctrl-C interrupts.
            else:
                self._start_in_threads()
            for error in self._errors.values():
                raise error
        except BaseException as error:
            self._roll_back(error)
            raise
        finally:
            self.active = False
            self.current.reset(token)

    def _start_in_threads(self) -> None:
        from concurrent.futures import ThreadPoolExecutor, wait

        pool = ThreadPoolExecutor(len(self.services), "cleanroom-start")
        tasks: dict[str, Future[None]] = {}
        try:
            for service in self.services:
                needed = [tasks[name] for name in service.needs if name in tasks]
                run = copy_context().run
                tasks[service.name] = pool.submit(run, self._start, service, needed)
            wait(tasks.values())
        except BaseException:  # Ctrl-C, which pressed again ends this wait for what is under way.
            self.given_up.set()
            wait(tasks.values())
            raise
        finally:
            pool.shutdown(wait=False)

    def _start(self, service: Service, needed: Iterable[Future[None]]) -> None:
        for task in needed:
            task.result()
        self._guard(self._launch, service)

    def _guard(self, step: Callable[[Service], None], service: Service) -> None:
        """Take a step, unless the start is given up already; an error gives it up."""
        if self.given_up.is_set():
            return
        try:
            step(service)
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            self._errors[service.name] = error
            self.given_up.set()
            _notify("cleanroom_service_failed", service_name=service.name, error=error)

    def _prepare(self, service: Service) -> None:
        known = {**self.running, **self.started}
        plugin = service.build({name: known[name][1] for name in service.needs if name in known})
        check_members(plugin)
        if plugin.name != service.name:
            raise InternalError(f"its plugin is named {plugin.name!r}", service=service.name)
        getattr(plugin, "about_to_start", bool)()  # To begin what takes time, and is no service.
        from cleanroom import hooks  # Here, as that goes on while this is imported.

        hooks.validate(plugin)
        self._plugins[service.name] = plugin

    def _launch(self, service: Service) -> None:
        if service.name not in self._plugins:
            self._prepare(service)
        plugin = self._plugins[service.name]
        with spans.plugin_start_span(service.name):
            handle = cast(object, plugin.start())
            if not isinstance(handle, ServiceHandle):
                what = f"start() returned {type(handle).__name__}, not a ServiceHandle"
                raise InternalError(what, service=service.name)
        self.started[service.name] = (plugin, handle)
        _notify("cleanroom_service_started", handle=handle)
        if not self.active:  # A second Ctrl-C ended `run` before this came up.
            stop_each([service.name], self.started)

    def _roll_back(self, error: BaseException) -> None:
        tried = {*self.started, *self._errors}
        if idle := [service.name for service in self.services if service.name not in tried]:
            error.add_note(scrub(f"not started because of this: {', '.join(idle)}"))
        for name, other in self._errors.items():
            if other is not error:
                error.add_note(scrub(f"{name!r} failed as well: {other!r}"))
        for name, other in stop_each(list(reversed(self.started)), self.started).items():
            error.add_note(scrub(f"stopping {name!r} failed as well: {other!r}"))


def stop_each(names: Iterable[str], running: dict[str, Running]) -> dict[str, Exception]:
    """Stop services in the given order, take them out of `running`, and return the errors."""
    errors: dict[str, Exception] = {}
    for name in names:
        plugin, handle = running[name]
        try:
            with spans.plugin_stop_span(name):
                plugin.stop(handle)
        except Exception as error:  # noqa: BLE001 - the others are to be stopped nevertheless
            errors[name] = error
        else:
            del running[name]
            _notify("cleanroom_service_stopped", handle=handle)
    return errors


def ask(plugin: ServicePlugin, handle: ServiceHandle) -> HealthStatus:
    """Return the health of a service; where the plugin raises, against its contract, unknown."""
    try:
        with spans.health_check_span(plugin.name):
            return plugin.health_check(handle)
    except Exception as error:  # noqa: BLE001
        log_failure(f"health check of {plugin.name!r}", error)
        return HealthStatus.UNKNOWN


def check_members(plugin: object) -> None:
    """Raise `ValidationError` unless it has the four members of a plugin, and a name."""
    kind = type(plugin).__name__
    if isinstance(plugin, type):
        raise ValidationError(f"plugin is the class {plugin.__name__}, not an object of it")
    if missing := missing_members(plugin):
        raise ValidationError(f"plugin of type {kind} lacks {', '.join(missing)}")
    name = getattr(plugin, "name", None)
    if not isinstance(name, str) or not name:
        raise ValidationError(f"plugin of type {kind} has the name {name!r}: give it a text")


def _notify(hook: str, **facts: object) -> None:
    from cleanroom import hooks  # Here, because pluggy is not needed before something starts.

    hooks.notify(hook, **facts)
