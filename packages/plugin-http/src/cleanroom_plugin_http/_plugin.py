"""An HTTP API as a service."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from cleanroom import ServiceError, ServiceHandle
from cleanroom_plugin_http import _check
from cleanroom_plugin_http._credentials import secrets_of
from cleanroom_plugin_http._expect import Expected, check_expected, name_of
from cleanroom_plugin_http._health import ANY_ANSWER, HealthCheck
from cleanroom_plugin_http._program import find_program
from cleanroom_plugin_http._tls import Tls, check_tls
from cleanroom_runtime import (
    BackendChoice,
    BasePlugin,
    LocalServer,
    NotReturnedError,
    ProcessSpec,
    Workspace,
    call_within,
    hider,
)
from cleanroom_runtime.options import table, within

if TYPE_CHECKING:
    from cleanroom_runtime import ContainerSpec

Validator = Callable[[ServiceHandle], object]
"""Is given the service's handle; raises, or returns `False`, where something is wrong with it."""


class HttpPlugin(BasePlugin):
    """An HTTP API, from an image or from a local command.

    Immutable: each `with_...` returns a changed copy.

    Args:
        name: The service's name.
        image: Image of the container backend.
        port: The port it listens on in its container. A local command is told where to listen:
            `{port}` and `{host}` in arguments and environment stand for that, and the variables
            `PORT` and `HOST` say it too, unless `env` has them.
        command: Program and arguments of the process backend; in a container, what is run instead
            of the image's own command, if an image is named as well. A program without a folder
            is looked for beside the running Python first, then on `PATH`.
        env: Environment variables.
        cwd: Working directory of a local command; the current one when not given, and the folder
            of the file where the service is declared.
        health: `path`, `expect` or `matches` (a regular expression), `timeout`, `headers` and
            `follow_redirects`, as for `with_health_check`; any status below 400 is expected where
            nothing is said of it. Without any of this, `GET /` has to answer with a status
            below 500.
        tls: `ca` or `verify`, as for `with_tls`; the service then speaks HTTPS.
        backend: See `cleanroom_runtime.BasePlugin`.
        url: Base URL of a service somebody else runs, for the external backend.
        start_timeout: Seconds until the service must answer.
        health_timeout: Seconds within which `health_check` answers.

    Raises:
        ValidationError: An argument is malformed; names the argument and the value.
    """

    plugin_type: ClassVar[str] = "http"
    url_schemes: ClassVar[tuple[str, ...]] = ("http", "https")
    same_service: ClassVar[bool] = True
    probes_port: ClassVar[bool] = True
    patient: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        image: str | None = None,
        port: int | None = None,
        *,
        command: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        health: Mapping[str, object] | None = None,
        tls: Mapping[str, object] | None = None,
        backend: BackendChoice = "auto",
        url: str | None = None,
        start_timeout: float = 60.0,
        health_timeout: float = 2.0,
    ) -> None:
        super().__init__(
            name,
            image,
            backend=backend,
            url=url,
            start_timeout=start_timeout,
            health_timeout=health_timeout,
        )
        self._port = _check.container_port(port, image)
        self._command = _check.command(command)
        self._env: Mapping[str, str] = _check.env(env or {})
        self._cwd = _check.cwd(cwd)
        self._health: HealthCheck | None = None
        self._tls: Tls | None = None
        self._validators: tuple[Validator, ...] = ()
        if health is not None:
            checked = _check.health_options(health)
            with within("health"):
                self._health = self.with_health_check(**checked)._health
        if tls is not None:
            checked = table("tls", tls, ("ca", "verify"))
            with within("tls"):
                self._tls = self.with_tls(**checked)._tls

    @classmethod
    def from_config(cls, name: str, options: Mapping[str, object], folder: Path) -> Self:
        """Make the plugin of a declared service, see `cleanroom_runtime.BasePlugin`."""
        placed = {"cwd": folder, **options}
        if isinstance(placed["cwd"], str):
            placed["cwd"] = folder / placed["cwd"]
        if "tls" in options:
            placed["tls"] = tls = table("tls", options["tls"])
            if isinstance(tls.get("ca"), str):
                tls["ca"] = folder / tls["ca"]
        return super().from_config(name, placed, folder)

    def with_health_check(
        self,
        path: str = "/health",
        expected: Expected = "OK",
        *,
        timeout: float = 1.0,
        headers: Mapping[str, str] | None = None,
        follow_redirects: bool = True,
    ) -> Self:
        """Return a copy that is ready and healthy when `GET path` answers as expected.

        Args:
            path: Path, with query if need be.
            expected: A status; a text the body has; a compiled pattern it matches; a part of its
                JSON, as a dict or a list; `None`, for any status below 400; or a callable that is
                given the `requests.Response` and raises, or returns `False`, where it is wrong.
                Where it is text or JSON, the status must be below 400 as well.
            timeout: Seconds within which the whole answer to one request has to come. A callable
                that is given it has what is left of `start_timeout`.
            headers: Sent along.
            follow_redirects: Whether the answer counts that a redirect leads to.
        """
        return self._with(
            _health=HealthCheck(
                _check.path(path),
                check_expected(expected),
                _check.timeout(timeout),
                _check.headers(headers),
                _check.flag("follow_redirects", follow_redirects),
            )
        )

    def with_validator(self, validator: Validator) -> Self:
        """Return a copy that also asks `validator`: once the service is ready, and how it is.

        What it finds wrong ends the start at once; what only needs time is for the health check.
        All of them together have `start_timeout` once more, from when the service is ready.

        Args:
            validator: Is given the handle; raises, or returns `False`, where something is wrong.
        """
        return self._with(_validators=(*self._validators, _check.validator(validator)))

    def with_env(self, key: str, value: str) -> Self:
        """Return a copy with one more environment variable."""
        return self._with(_env={**self._env, **_check.env({key: value})})

    def with_tls(self, *, ca: str | os.PathLike[str] | None = None, verify: bool = True) -> Self:
        """Return a copy whose service speaks HTTPS.

        Args:
            ca: Path of the certificates to trust: a file, or a folder as OpenSSL has it.
            verify: Whether the certificate is checked. `False` says explicitly that it is not.
        """
        return self._with(_tls=check_tls(ca, verify))

    # -- what runs

    def install_hint(self, major: str | None) -> str:
        """Say what to give."""
        return "give command=[...] to run it as a local process, or name an image"

    def local_servers(self) -> Iterator[LocalServer]:
        """The command, if one was given."""
        if self._command:
            path = self._env.get("PATH")
            program = find_program(self._command[0], path, self._cwd, self.name)
            yield LocalServer(program, "unknown", "its command")

    def process(self, server: LocalServer, workspace: Workspace) -> ProcessSpec:
        """Return the command, told where to listen."""
        where = {"port": str(workspace.port), "host": "127.0.0.1"}
        return ProcessSpec(
            argv=[str(server.executable), *self._arguments(where)[1:]],
            # What it writes is to stand in its log when it is asked for.
            env={"PYTHONUNBUFFERED": "1", **self._environment(where)},
            cwd=self._cwd or Path.cwd(),
        )

    def container(self, image: str) -> ContainerSpec:
        """Return the image, with the command if one was given as well."""
        from cleanroom_runtime import ContainerSpec

        assert self._port is not None  # noqa: S101 - checked with the image
        where = {"port": str(self._port), "host": "0.0.0.0"}  # noqa: S104 - inside the container
        return ContainerSpec(
            image=image,
            port=self._port,
            env=self._environment(where),
            command=self._arguments(where) or None,
        )

    def variables(self) -> Mapping[str, str]:
        """The environment variables."""
        return self._env

    def secrets(self) -> Iterator[str]:
        """What is secret in the environment variables and in what the health check sends."""
        yield from super().secrets()
        if self._health is not None:
            yield from secrets_of(self._health.path, self._health.headers)

    def _arguments(self, where: Mapping[str, str]) -> list[str]:
        return [_check.fill(argument, where) for argument in self._command]

    def _environment(self, where: Mapping[str, str]) -> dict[str, str]:
        own = {"PORT": where["port"], "HOST": where["host"]}
        return {**own, **{key: _check.fill(value, where) for key, value in self._env.items()}}

    def attach(self, url: str, service_id: str) -> Mapping[str, str]:
        """Use somebody else's service."""
        return {**_check.address(url), "url": url, **self._tls_facts()}

    def describe(self, host: str, port: int) -> Mapping[str, str]:
        """Return the base URL."""
        scheme = "https" if self._tls else "http"
        named = f"[{host}]" if ":" in host else host
        return {"url": f"{scheme}://{named}:{port}", "version": "unknown", **self._tls_facts()}

    def _tls_facts(self) -> dict[str, str]:
        return self._tls.facts() if self._tls else {}

    # -- what is asked of it

    def warm_up(self) -> None:
        """Import the client library while the service starts."""
        import_module("cleanroom_plugin_http._session")

    def probe(self, endpoint: Mapping[str, str], timeout: float) -> None:
        """Ask for the health path, and hold the answer against what is expected."""

        def hide(text: str) -> str:
            return hider(self, endpoint)(text)

        (self._health or ANY_ANSWER).ask(endpoint, timeout, hide)

    def prepare(self, handle: ServiceHandle) -> Mapping[str, str]:
        """Ask the validators."""
        self._validate(handle, self.start_timeout)
        return {}

    def examine(self, handle: ServiceHandle, timeout: float) -> None:
        """Ask the service, then the validators."""
        began = time.monotonic()
        self.probe(handle.metadata, timeout)
        self._validate(handle, began + timeout - time.monotonic())

    def _validate(self, handle: ServiceHandle, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for validator in self._validators:
            name = name_of(validator)
            left = max(0.0, deadline - time.monotonic())
            try:
                verdict = call_within(partial(validator, handle), left)
            except NotReturnedError as exc:
                raise ServiceError(f"validator {name}: {exc}") from exc
            except Exception as exc:
                said = f"{type(exc).__name__}: {exc}".rstrip(": ")
                raise ServiceError(f"validator {name} raised {said}") from exc
            if verdict is False:
                raise ServiceError(f"validator {name} returned False")
