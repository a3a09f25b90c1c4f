"""The base class of plugins: says how a service runs, so that a plugin only says what it runs."""

from __future__ import annotations

import copy
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self, cast

from cleanroom import (
    CleanroomError,
    ConfigurationError,
    HealthStatus,
    InternalError,
    ServiceError,
    ServiceHandle,
    ValidationError,
    spans,
)
from cleanroom._secrets import is_secret_key
from cleanroom_runtime import _check, _lifecycle, _start
from cleanroom_runtime._choose import Choice, Wanted, choose, url_variable
from cleanroom_runtime._run import current_run
from cleanroom_runtime._specs import (
    BackendChoice,
    LocalServer,
    ProcessSpec,
    Workspace,
)

if TYPE_CHECKING:
    from cleanroom_runtime._container_spec import ContainerSpec

Lease = Callable[[ServiceHandle], AbstractContextManager[ServiceHandle]]
"""Leases a clean slice of a service."""


class BasePlugin(ABC):
    """A service that runs in a container, as a local process, or on somebody else's server.

    A plugin derives from this class and says three things: `container` and `process` describe what
    to run, `probe` asks the running service whether it is ready. Choosing the backend, launching,
    waiting, logs, metadata, spans and clean-up are done here. Plugins are immutable.

    Args:
        name: The service's name, unique within a suite; `plugin_type`, if none is given.
        image: Image to run in a container. One that is named is a promise, see `backend`.
        backend: `"process"`, `"container"`, `"external"`, or `"auto"`, which runs a named image if
            an engine answers, and a local server otherwise where it can stand in for it.
            `CLEANROOM_BACKEND` in the environment wins.
        url: Address of a server that somebody else runs, for `"external"`.
        start_timeout: Seconds within which the service must be ready once it was launched.
        health_timeout: Seconds within which `health_check` answers.

    Raises:
        ValidationError: An argument is malformed; names the argument and the value.
    """

    plugin_type: ClassVar[str]
    """The name under which the plugin is found: its entry point, its key in configuration."""
    default_image: ClassVar[str | None] = None
    """The image to run where no image was named and no local server was found."""
    official_image: str | None = None
    """Name of the image that a local server of the same major version may stand in for."""
    same_service: ClassVar[bool] = False
    """Whether the user names image and local server both, so that either is the service."""
    container_only: ClassVar[bool] = False
    """Whether it always runs in a container, whatever `CLEANROOM_BACKEND` says."""
    refuses_root: ClassVar[bool] = False
    """Whether the server program will not run as root."""
    probes_port: ClassVar[bool] = False
    """Whether `probe` asks the service at its port, and a connection that only opens and closes is
    nothing to it. As a process it is then asked for the first time when it accepts connections
    there, which is noticed at once."""
    patient: ClassVar[bool] = False
    """Whether one question of `probe` may take all that is left of `start_timeout`, as where it
    calls what a user gave. It then gives up by itself, and soon, on who does not answer. A question
    has 5 seconds otherwise."""
    url_schemes: ClassVar[tuple[str, ...]] = ()
    """Schemes of the URLs that `attach` takes, the usual one first; any, where there are none."""
    database_system: ClassVar[str | None] = None
    """For a database, what OpenTelemetry calls it in `db.system.name`."""

    CONFIG_KEYS: ClassVar[tuple[str, ...]] = ()
    """What can be declared beside the arguments of the class, see `configured`."""

    def __init__(
        self,
        name: str | None = None,
        image: str | None = None,
        *,
        backend: BackendChoice = "auto",
        url: str | None = None,
        start_timeout: float = 60.0,
        health_timeout: float = 2.0,
    ) -> None:
        self._name = _check.service_name(self.plugin_type if name is None else name)
        self._image = _check.image(image)
        self._backend: BackendChoice = _check.backend(backend)
        self._url = _check.url("url", url, self.url_schemes)
        self.start_timeout = _check.seconds("start_timeout", start_timeout)
        self.health_timeout = _check.seconds("health_timeout", health_timeout)

    @classmethod
    def from_config(cls, name: str, options: Mapping[str, object], folder: Path) -> Self:
        """Make the plugin of a declared service.

        Args:
            name: The service's name.
            options: Arguments of the class, and what `CONFIG_KEYS` names.
            folder: What relative paths in them are relative to.

        Raises:
            ValidationError: An option is malformed, or one that is needed is missing; names it.
        """
        own = {key: value for key, value in options.items() if key in cls.CONFIG_KEYS}
        arguments = {key: value for key, value in options.items() if key not in own}
        if missing := _required_by(cls) - {"name", *arguments}:
            raise ValidationError(f"{' and '.join(sorted(missing))} must be given")
        plugin = cast("Callable[..., Self]", cls)(name, **arguments)
        return plugin.configured(own, folder)

    def configured(self, options: Mapping[str, object], folder: Path) -> Self:
        """Return a copy with declared options that are no arguments of the class.

        Args:
            options: Those of `CONFIG_KEYS` that were declared.
            folder: What relative paths in them are relative to.
        """
        return self

    def expecting(self, wishes: Sequence[object]) -> Self:
        """Return a copy that may prepare, before it starts, what will be asked of its service.

        Args:
            wishes: What fixtures of a test session have as `cleanroom_runtime.fixtures.EXPECTS`,
                in no order.
        """
        return self

    # -- what a plugin says

    @abstractmethod
    def probe(self, endpoint: Mapping[str, str], timeout: float) -> None:
        """Ask the service the question that only a ready service answers.

        Args:
            endpoint: The metadata of the service's handle: `host`, `port`, `url`...
            timeout: Seconds after which to give up.

        Raises:
            Exception: It is not ready; the message says why.
        """

    def examine(self, handle: ServiceHandle, timeout: float) -> None:
        """Ask a service that was ready how it is: by default, what `probe` asks.

        Args:
            handle: The service's.
            timeout: Seconds after which to give up.

        Raises:
            Exception: It is not well; the message says why.
        """
        self.probe(handle.metadata, timeout)

    @abstractmethod
    def describe(self, host: str, port: int) -> Mapping[str, str]:
        """Return the metadata of a service at this address: `url` and what else users need."""

    def container(self, image: str) -> ContainerSpec:
        """Return the container to run."""
        raise ServiceError(f"cannot run in a container ({image})", service=self.name)

    def process(self, server: LocalServer, workspace: Workspace) -> ProcessSpec:
        """Return the process to run with this server in this workspace.

        The folders of the workspace do not exist yet; the spec's files are written into them.
        """
        raise ServiceError(f"cannot run as a process ({server.executable})", service=self.name)

    def local_servers(self) -> Iterable[LocalServer]:
        """Find the servers installed on this machine, the best first.

        An iterator need not look for the next one until it is asked for.
        """
        return ()

    def install_hint(self, major: str | None) -> str:
        """Say how to get a local server, of this major version if one is given."""
        return f"install version {major} on this machine" if major else "install the server"

    def attach(self, url: str, service_id: str) -> Mapping[str, str]:
        """Return the metadata for a server somebody else runs, `host`, `port` and `url` included.

        Whatever the plugin makes there, it registers its removal first and undoes in `detach`.
        """
        raise ServiceError("cannot use an external server", service=self.name)

    def detach(self, metadata: Mapping[str, str]) -> None:  # noqa: B027 - nothing, by default
        """Undo in the external server what `attach` did there. Doing it twice is fine."""

    def warm_up(self) -> None:  # noqa: B027 - nothing, by default
        """Import what the plugin needs, while the server starts."""

    def prepare(self, handle: ServiceHandle) -> Mapping[str, str]:
        """Do what must be done once in the ready service. Returns metadata to add."""
        return {}

    def variables(self) -> Mapping[str, str]:
        """The environment variables the user gave."""
        return {}

    def secrets(self) -> Iterable[str]:
        """Texts that show in no log and no error, beside what is secret in the service's handle.

        By default, the `variables` that are secret by name.
        """
        return [value for name, value in self.variables().items() if is_secret_key(name)]

    def disconnect(self, handle: ServiceHandle) -> None:  # noqa: B027 - nothing, by default
        """Close what this process holds open to a service that is about to be stopped."""

    # -- the protocol

    @property
    def name(self) -> str:
        """The service's name."""
        return self._name

    def about_to_start(self) -> None:
        """Begin what takes time, as the environment is about to start the service."""
        with suppress(CleanroomError):  # which the start will meet as well
            current_run().wake()

    def start(self) -> ServiceHandle:
        """Start the service and return its handle once it answers.

        Raises:
            CleanroomError: It could not be started; what had been started is stopped.
        """
        with spans.plugin_start_span(self.name) as span:
            return _start.start(self, span)

    def stop(self, handle: ServiceHandle) -> None:
        """Stop the service and return when it is gone. Stopping twice is fine.

        Raises:
            ServiceError: The handle is of no service of this plugin.
        """
        with spans.plugin_stop_span(self.name):
            _lifecycle.stop(self, handle)

    def health_check(self, handle: ServiceHandle) -> HealthStatus:
        """Ask the service how it is. Answers within the health timeout and does not raise."""
        with spans.health_check_span(self.name) as span:
            status = _lifecycle.health(self, handle, self.health_timeout)
            span.set("cleanroom.service.health", status.value)
            return status

    def logs(self, handle: ServiceHandle, tail: int = 100) -> str:
        """Return the last `tail` lines the service wrote, secrets removed."""
        return _lifecycle.log_tail(self, handle.metadata, tail)

    def kill(self, handle: ServiceHandle) -> None:
        """End the service as a crash would, without cleaning up. For tests of what follows."""
        _lifecycle.kill(handle)

    def view_of(self, handle: ServiceHandle) -> ServiceHandle:
        """Return the handle of another service as this plugin's own service will see it.

        From within a container that is another address than the one tests use: in its texts, as
        in `url`, stand the host and port that lead there. What is needed for that is set up, and
        ends with the run.

        Args:
            handle: The other service's, or that of a slice of it.

        Raises:
            ServiceError: The other service cannot be reached from there.
        """
        return _lifecycle.view_of(self, handle)

    def choose(self) -> Choice:
        """Choose the backend as `start` would. Starts nothing.

        Raises:
            CleanroomError: Nothing on this machine can serve, or a setting is wrong.
        """
        given = self._url_in_environment()
        wanted = Wanted(
            service=self.name,
            backend=self._backend,
            image=self._image,
            default_image=self.default_image,
            official_image=self.official_image,
            url=given or self._url,
            url_reason=f"{url_variable(self.name)} is set" if given else "a URL was given",
            local_servers=self.local_servers,
            install_hint=self.install_hint,
            same_service=self.same_service,
            container_only=self.container_only,
        )
        return choose(wanted)

    def _url_in_environment(self) -> str | None:
        variable = url_variable(self.name)
        try:
            return _check.url(variable, os.environ.get(variable) or None, self.url_schemes)
        except ValidationError as exc:
            raise ConfigurationError(exc.message, service=self.name, hint=exc.hint) from exc

    @contextmanager
    def _isolating(self, handle: ServiceHandle, lease: Lease) -> Iterator[ServiceHandle]:
        """Lease a slice, for a plugin that has some, and say of an error which service it is of."""
        from cleanroom_runtime._explain import explained

        with ExitStack() as leased:
            with explained(self, handle):
                isolated = leased.enter_context(lease(handle))
            yield isolated
            with explained(self, handle):
                leased.close()

    def _with(self, **changes: object) -> Self:
        """Return a copy with other values in these attributes."""
        changed = copy.copy(self)
        for name, value in changes.items():
            if not hasattr(changed, name):
                raise InternalError(f"{type(self).__name__} has no {name!r}", service=self.name)
            setattr(changed, name, value)
        return changed

    def __repr__(self) -> str:
        """Show what tells plugins apart, and no secret."""
        return f"{type(self).__name__}(name={self.name!r}, image={self._image!r})"


def _required_by(plugin: type[BasePlugin]) -> set[str]:
    """Return the arguments of a class that have no default."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(plugin).parameters.values()
    return {each.name for each in parameters if each.default is each.empty and each.kind in kinds}
