"""Any image as a service."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from cleanroom import ServiceError, ServiceHandle, ValidationError
from cleanroom_runtime import _container_arguments as checked
from cleanroom_runtime._container import log_tail, state
from cleanroom_runtime._container_access import ContainerAccess, FileContent, inside_of
from cleanroom_runtime._container_spec import ContainerSpec
from cleanroom_runtime._hiding import hider
from cleanroom_runtime._inside import Inside
from cleanroom_runtime._plugin import BasePlugin
from cleanroom_runtime._ready import LONGEST_QUESTION
from cleanroom_runtime._specs import PullPolicy
from cleanroom_runtime._waits import Check, Place, PortWait, Wait


class ContainerPlugin(ContainerAccess, BasePlugin):
    """Any image that has no plugin of its own. It always runs in a container.

    `CLEANROOM_BACKEND` does not apply to it, as there is nothing else that could run; the handle's
    `backend_reason` says so. Where each port is reached stands in the handle's metadata: of the
    main one under `host` and `port`, of each, say 8025, under `host_8025` and `port_8025`.

    Immutable: each `with_...` returns a changed copy.

    Args:
        name: The service's name.
        image: The image.
        ports: The TCP ports that are listened on inside the container, the main one first.
        env: Environment variables.
        files: Path inside to content, see `with_file`. Where it is declared, a text is the
            content, and `{ path = "app.conf" }` names a local file or folder.
        command: Arguments instead of the image's own.
        wait: What a ready service is known by: the arguments of `with_wait` as a table, or several
            of them. Without any, each port has to be listened on.
        scheme: Of the `url` in the handle.
        memory: Memory limit, in bytes or as a text such as `"256m"`.
        cpus: How much of the processors it may use, such as `0.5`.
        shm_size: Size of `/dev/shm`, as for `memory`.
        tmpfs: Paths inside to keep in memory; or these with mount options, as a table.
        user: User to run as inside, for instance `"1000:1000"`.
        pull: Whether to pull the image: when it is `"missing"`, `"always"` or `"never"`.
        registry: `username` and `password` for the image's registry; when not given, those that
            `docker login` has noted.
        start_timeout: Seconds until the service must be ready once its container runs. The time
            for pulling the image does not count.
        health_timeout: Seconds within which `health_check` answers.

    Raises:
        ValidationError: An argument is malformed; names the argument and the value.
    """

    plugin_type: ClassVar[str] = "container"
    container_only: ClassVar[bool] = True
    patient: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        image: str,
        ports: Sequence[int] | int,
        *,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, FileContent] | None = None,
        command: Sequence[str] | None = None,
        wait: Mapping[str, object] | Sequence[Mapping[str, object]] = (),
        scheme: str = "tcp",
        memory: int | str | None = None,
        cpus: float | None = None,
        shm_size: int | str | None = None,
        tmpfs: Mapping[str, str] | Sequence[str] = (),
        user: str | None = None,
        pull: PullPolicy = "missing",
        registry: Mapping[str, str] | None = None,
        start_timeout: float = 60.0,
        health_timeout: float = 2.0,
    ) -> None:
        super().__init__(name, image, start_timeout=start_timeout, health_timeout=health_timeout)
        if self._image is None:
            raise ValidationError("image is None", hint="name the image to run")
        self._ports = checked.ports(ports)
        self._env: Mapping[str, str] = checked.env(env or {})
        self._files: Mapping[str, bytes | Path] = checked.files(files or {})
        self._command = None if command is None else checked.command("command", command)
        self._waits = checked.waits(wait, self._ports)
        self._scheme = checked.scheme(scheme)
        self._memory = checked.size("memory", memory)
        self._cpus = checked.cpus(cpus)
        self._shm_size = checked.size("shm_size", shm_size)
        self._tmpfs: Mapping[str, str] = checked.tmpfs(tmpfs)
        self._user = checked.user(user)
        self._pull: PullPolicy = checked.pull(pull)
        self._registry = checked.registry(registry)

    @classmethod
    def from_config(cls, name: str, options: Mapping[str, object], folder: Path) -> Self:
        """Make the plugin of a declared service, see `cleanroom_runtime.BasePlugin`."""
        placed = dict(options)
        if "files" in options:
            placed["files"] = checked.declared_files(options["files"], folder)
        return super().from_config(name, placed, folder)

    # -- saying more of it

    def with_env(self, key: str, value: str) -> Self:
        """Return a copy with one more environment variable."""
        return self._with(_env={**self._env, **checked.env({key: value})})

    def with_file(self, path: str, content: FileContent) -> Self:
        """Return a copy that has a file put into its container before that starts.

        Args:
            path: Where it will be, absolute. It will belong to root, and everyone may read it.
            content: Bytes, a text, or the `Path` of a local file or folder, whose permissions are
                kept.
        """
        return self._with(_files={**self._files, **checked.files({path: content})})

    def with_command(self, command: Sequence[str]) -> Self:
        """Return a copy that is given these arguments instead of the image's own."""
        return self._with(_command=checked.command("command", command))

    def with_wait(
        self,
        *,
        port: int | None = None,
        log: str | None = None,
        log_matches: str | re.Pattern[str] | None = None,
        http: str | None = None,
        status: int | None = None,
        command: Sequence[str] | None = None,
        check: Check | None = None,
    ) -> Self:
        """Return a copy that is not ready before this holds as well. Give one of the arguments.

        Whether it is healthy later is asked in the same way, but for the log.

        Args:
            port: This one of `ports` has to be listened on.
            log: A text that the log has to have.
            log_matches: A regular expression that has to be found in the whole log. In a text, `^`
                and `$` stand for the ends of lines.
            http: `GET` for this path has to answer with a status below 400, on the main port, or
                on `port`.
            status: With `http`, the status it has to answer with.
            command: Program and arguments that have to end with exit code 0 in the container.
            check: Is given the metadata of the handle; raises, or returns `False`, while the
                service is not ready.
        """
        options = {
            "port": port, "log": log, "log_matches": log_matches, "http": http,
            "status": status, "command": command, "check": check,
        }  # fmt: skip
        return self._with(_waits=(*self._waits, checked.wait(options, self._ports)))

    def with_limits(
        self,
        *,
        memory: int | str | None = None,
        cpus: float | None = None,
        shm_size: int | str | None = None,
    ) -> Self:
        """Return a copy with these limits changed. The arguments are those of the class."""
        given: dict[str, object] = {
            "_memory": checked.size("memory", memory),
            "_cpus": checked.cpus(cpus),
            "_shm_size": checked.size("shm_size", shm_size),
        }
        return self._with(**{key: value for key, value in given.items() if value is not None})

    def with_tmpfs(self, path: str, options: str = "") -> Self:
        """Return a copy that keeps one more path in memory, mounted with options if need be."""
        return self._with(_tmpfs={**self._tmpfs, **checked.tmpfs({path: options})})

    def with_user(self, user: str) -> Self:
        """Return a copy that runs as another user inside."""
        return self._with(_user=checked.user(user))

    def with_pull(self, pull: PullPolicy) -> Self:
        """Return a copy that pulls its image when it is `"missing"`, `"always"` or `"never"`."""
        return self._with(_pull=checked.pull(pull))

    def with_registry(self, username: str, password: str) -> Self:
        """Return a copy that logs in to the registry to pull its image. Never shown."""
        account = {"username": username, "password": password}
        return self._with(_registry=checked.registry(account))

    # -- what runs, and what is asked of it

    def container(self, image: str) -> ContainerSpec:
        """Return the container to run."""
        return ContainerSpec(
            image=image,
            port=self._ports[0],
            further_ports=self._ports[1:],
            env=self._env,
            command=self._command,
            files=self._files,
            tmpfs=self._tmpfs,
            memory=self._memory,
            cpus=self._cpus,
            shm_size=self._shm_size,
            user=self._user,
            pull=self._pull,
            registry=self._registry,
        )

    def describe(self, host: str, port: int) -> Mapping[str, str]:
        """Return the URL, and the main port under its own name as well."""
        named = f"[{host}]" if ":" in host else host
        return {
            "url": f"{self._scheme}://{named}:{port}",
            f"host_{self._ports[0]}": host,
            f"port_{self._ports[0]}": str(port),
        }

    def variables(self) -> Mapping[str, str]:
        """The environment variables."""
        return self._env

    def probe(self, endpoint: Mapping[str, str], timeout: float) -> None:
        """Ask whether all that is waited for holds, and the container still runs."""
        deadline = time.monotonic() + timeout
        place = self._place(endpoint)
        for wait in self._wanted():
            left = _left(deadline)
            wait.ask(place, left if wait.patient else min(left, LONGEST_QUESTION))
        _check_running(place.inside, min(_left(deadline), LONGEST_QUESTION))

    def examine(self, handle: ServiceHandle, timeout: float) -> None:
        """Ask the engine for the container's state, then what was waited for, but for the log."""
        deadline = time.monotonic() + timeout
        place = self._place(handle.metadata)
        _check_running(place.inside, _left(deadline))
        for wait in self._wanted():
            if wait.lasting:
                wait.ask(place, _left(deadline))

    def _wanted(self) -> Sequence[Wait]:
        return self._waits or [PortWait(port) for port in self._ports]

    def _place(self, metadata: Mapping[str, str]) -> Place:
        inside = inside_of(ServiceHandle("", self.name, metadata))
        return Place(
            metadata,
            inside,
            log=lambda: log_tail(inside.container_id, inside.engine, None),
            hide=lambda text: hider(self, metadata)(text),
        )


def _check_running(inside: Inside, timeout: float) -> None:
    """Raise where a container does not run, or is paused."""
    status = state(inside.container_id, inside.engine, timeout=timeout).status
    if status != "running":
        raise ServiceError(f"its container is {status}")


def _left(deadline: float) -> float:
    """Seconds until the deadline, some at least."""
    return max(0.01, deadline - time.monotonic())
