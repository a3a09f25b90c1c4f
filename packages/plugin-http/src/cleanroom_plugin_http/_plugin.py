"""An HTTP API as a service."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from cleanroom import ConfigurationError, ServiceError, ServiceHandle
from cleanroom_plugin_http import _check
from cleanroom_plugin_http._expect import Expected, check_expected, hold_against
from cleanroom_runtime import (
    BackendChoice,
    BasePlugin,
    ContainerSpec,
    LocalServer,
    ProcessSpec,
    Workspace,
)

Validator = Callable[[ServiceHandle], object]
"""Is given the service's handle; raises, or returns `False`, where something is wrong with it."""


@dataclass(frozen=True)
class HealthCheck:
    """The question a healthy service answers, and the answer.

    Attributes:
        path: What is asked for with `GET`.
        expected: See `HttpPlugin.with_health_check`; any status below 500 when not given.
        timeout: Seconds to wait for one answer.
        headers: Sent along.
        follow_redirects: Whether the answer counts that a redirect leads to.
    """

    path: str = "/"
    expected: Expected | None = None
    timeout: float = 1.0
    headers: Mapping[str, str] | None = None
    follow_redirects: bool = True


@dataclass(frozen=True)
class Tls:
    """How the service's certificate is checked.

    Attributes:
        ca: Path of the certificates to trust.
        verify: Whether it is checked at all.
    """

    ca: str = ""
    verify: bool = True


class HttpPlugin(BasePlugin):
    """An HTTP API, from an image or from a local command.

    Immutable: each `with_...` returns a changed copy.

    Args:
        name: The service's name.
        image: Image of the container backend.
        port: The port it listens on in its container. A local command is told where to listen:
            `{port}` and `{host}` in its arguments and its environment stand for that.
        command: Program and arguments of the process backend; in a container, what is run instead
            of the image's own command, if an image is named as well.
        env: Environment variables.
        cwd: Working directory of a local command; the current one when not given.
        health: `path`, `expect` (or `expected`), `timeout`, `headers` and `follow_redirects`, as
            given to `with_health_check`.
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
        self._health = HealthCheck()
        self._tls: Tls | None = None
        self._validators: tuple[Validator, ...] = ()
        if health is not None:
            options = _check.health_options(health)
            self._health = self.with_health_check(**options)._health

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
                JSON; or a callable that is given the `requests.Response`. Except for a status, the
                status must be below 400.
            timeout: Seconds to wait for one answer.
            headers: Sent along.
            follow_redirects: Whether the answer counts that a redirect leads to.
        """
        return self._with(
            _health=HealthCheck(
                _check.path(path),
                check_expected(expected),
                _check.timeout(timeout),
                _check.headers(headers),
                follow_redirects,
            )
        )

    def with_validator(self, validator: Validator) -> Self:
        """Return a copy that also asks `validator` after readiness and on `health_check`.

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
            ca: Path of the certificates to trust, where the system's own do not do.
            verify: Whether the certificate is checked. `False` says explicitly that it is not.
        """
        return self._with(_tls=Tls(_check.ca(ca), verify))

    # -- what runs

    def install_hint(self, major: str | None) -> str:
        """Say what to give."""
        return "give command=[...] to run it as a local process, or name an image"

    def local_servers(self) -> Iterator[LocalServer]:
        """The command, if one was given."""
        if self._command:
            program = self._command[0]
            found = shutil.which(program, path=self._env.get("PATH"))
            if found is None:
                raise ConfigurationError(
                    f"command begins with {program!r}, which is no program here",
                    service=self.name,
                    hint="give its full path, or sys.executable for Python",
                )
            yield LocalServer(Path(found), "unknown", "its command")

    def process(self, server: LocalServer, workspace: Workspace) -> ProcessSpec:
        """Return the command, told where to listen."""
        where = {"port": str(workspace.port), "host": "127.0.0.1"}
        arguments = [_check.fill(argument, where) for argument in self._command[1:]]
        env = {key: _check.fill(value, where) for key, value in self._env.items()}
        return ProcessSpec(
            argv=[str(server.executable), *arguments],
            env={"PORT": where["port"], "HOST": where["host"], **env},
            cwd=self._cwd or Path.cwd(),
        )

    def container(self, image: str) -> ContainerSpec:
        """Return the image, with the command if one was given as well."""
        assert self._port is not None  # noqa: S101 - checked with the image
        where = {"port": str(self._port), "host": "0.0.0.0"}  # noqa: S104 - inside the container
        command = [_check.fill(argument, where) for argument in self._command]
        env = {key: _check.fill(value, where) for key, value in self._env.items()}
        return ContainerSpec(image=image, port=self._port, env=env, command=command or None)

    def attach(self, url: str, service_id: str) -> Mapping[str, str]:
        """Use somebody else's service."""
        return {**_check.address(url), "url": url, **self._tls_facts()}

    def describe(self, host: str, port: int) -> Mapping[str, str]:
        """Return the base URL."""
        scheme = "https" if self._tls else "http"
        named = f"[{host}]" if ":" in host else host
        return {"url": f"{scheme}://{named}:{port}", "version": "unknown", **self._tls_facts()}

    def _tls_facts(self) -> dict[str, str]:
        if self._tls is None:
            return {}
        return {"tls_ca": self._tls.ca, "tls_verify": "yes" if self._tls.verify else "no"}

    # -- what is asked of it

    def warm_up(self) -> None:
        """Import the client library while the service starts."""
        import requests  # noqa: F401

    def probe(self, endpoint: Mapping[str, str], timeout: float) -> None:
        """Ask for the health path, hold the answer against what is expected, then validate."""
        import warnings

        from cleanroom_plugin_http._session import ServiceSession

        health = self._health
        verify: str | bool = endpoint.get("tls_ca") or endpoint.get("tls_verify") != "no"
        with (
            ServiceSession(endpoint["url"], headers=health.headers, verify=verify) as session,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # that a certificate is not checked was asked for
            response = session.get(
                health.path,
                timeout=min(timeout, health.timeout),
                allow_redirects=health.follow_redirects,
            )
        if health.expected is not None:
            hold_against(response, health.expected)
        elif response.status_code >= 500:
            raise ServiceError(f"GET {response.url} answered {response.status_code}")
        for validator in self._validators:
            if validator(ServiceHandle("", self.name, endpoint)) is False:
                raise ServiceError(f"validator {validator!r} returned False")
