"""What is done through testcontainers and docker's client. Import this when either is needed.

Both take half a second to import.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from docker.errors import APIError
from testcontainers.core.container import DockerContainer, Reaper
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.labels import create_labels

from cleanroom import CleanroomEnvironment
from cleanroom_runtime._archive import archive
from cleanroom_runtime._container_spec import ContainerSpec
from cleanroom_runtime._engine import Engine
from cleanroom_runtime._reach import Reach
from cleanroom_runtime._scratch import MOUNT_OPTIONS, is_there
from cleanroom_runtime._warden._engine_api import ask, reason_in

_client_lock = threading.Lock()
_ryuk_lock = threading.Lock()
_log = logging.getLogger("cleanroom.pull")


class PullError(Exception):
    """An image could not be had; the message is the engine's."""


class RyukError(Exception):
    """Ryuk was asked for and could not be started."""


class ServiceContainer(DockerContainer):
    """testcontainers' container, but that it neither needs Ryuk nor waits for anything.

    Args:
        engine: The engine to create it on.
        socket_url: A local socket that leads there.
        spec: What to run.
        name: Its name on the engine.
        labels: Its labels.
        reach: How its ports are made reachable.
        data: A file whose folder to keep in memory, unless the image brings it.

    Attributes:
        settled: Whether the engine is not at work on it any more, so that what can be removed now
            is all there will be.
        on_created: Called with its id when it is created and does not run yet.
    """

    def __init__(
        self,
        engine: Engine,
        socket_url: str,
        spec: ContainerSpec,
        name: str,
        labels: dict[str, str],
        reach: Reach,
        data: str | None = None,
    ) -> None:
        with _environment_kept():
            super().__init__(
                spec.image,
                docker_client_kw=_client_options(engine, socket_url),
                env=dict(spec.env),
                name=name,
            )
        if spec.command is not None:
            self.with_command(list(spec.command))
        self.settled = True
        self.on_created: Callable[[str], None] | None = None
        self._files = spec.files
        self._engine = engine
        self._data = data
        self._options: dict[str, Any] = {
            "labels": labels,
            "ports": {
                key: value for port in spec.all_ports for key, value in reach.ports(port).items()
            },
            "network": reach.network,
            "tmpfs": dict(spec.tmpfs),
            "mem_limit": spec.memory,
            "nano_cpus": None if spec.cpus is None else round(spec.cpus * 1e9),
            "shm_size": spec.shm_size,
            "user": spec.user,
        }

    def start(self) -> ServiceContainer:
        """Create and start the container. The image must be there."""
        options = {key: value for key, value in self._options.items() if value is not None}
        if _ryuk_wanted():
            _start_ryuk()
            # Among these is the session that Ryuk watches.
            options["labels"] = create_labels(self.image, options["labels"])
        created = self._create(options)
        if self._files:
            created.put_archive("/", archive(self._files))
        if self.on_created is not None:
            self.on_created(self.container_id)
        created.start()
        return self

    def _create(self, options: dict[str, Any]) -> Any:
        """Create the container, with its data in memory where that hides nothing."""
        if self._data is not None:
            in_memory = {**options["tmpfs"], posixpath.dirname(self._data): MOUNT_OPTIONS}
            created = self._create_as_it_is({**options, "tmpfs": in_memory})
            if not is_there(self._data, created.id, self._engine):
                return created
            created.remove(v=True, force=True)
        return self._create_as_it_is(options)

    def _create_as_it_is(self, options: dict[str, Any]) -> Any:
        containers = self.get_docker_client().client.containers
        self.settled = False
        try:
            created: Any = containers.create(
                self.image, command=self._command, environment=self.env, name=self._name, **options
            )
        except APIError:
            self.settled = True
            raise
        self.settled = True
        self._container = created
        return created

    @property
    def container_id(self) -> str:
        """Its id on the engine, once it is created."""
        return str(self.get_wrapped_container().id)

    @property
    def name(self) -> str:
        """Its name on the engine, known before it is created."""
        return str(self._name)

    def inspect(self) -> Mapping[str, Any]:
        """Return what the engine knows about the container now."""
        api: Any = self.get_docker_client().client.api
        return cast("Mapping[str, Any]", api.inspect_container(self.container_id))

    def close(self) -> None:
        """Close the connections to the engine; the container runs on."""
        self.get_docker_client().client.close()


def _ryuk_wanted() -> bool:
    return os.environ.get("CLEANROOM_RYUK", "").lower() in ("1", "true", "yes", "on")


def _start_ryuk() -> None:
    """Start testcontainers' Ryuk, once: a second net, for where the engine is remote."""
    with _ryuk_lock:
        try:
            Reaper.get_instance()
        except Exception as exc:  # whatever it was: the service is not to blame
            raise RyukError(str(exc)) from exc


def pull(engine: Engine, socket_url: str, spec: ContainerSpec) -> None:
    """Pull an image, and log how that goes on.

    Args:
        engine: The engine to pull it to.
        socket_url: A local socket that leads there.
        spec: Says which image, and what to log in to its registry with.

    Raises:
        PullError: It could not be pulled.
    """
    with _environment_kept():
        client = DockerClient(**_client_options(engine, socket_url)).client
    try:
        _pull(client.api, spec)
    finally:
        client.close()


def _pull(api: Any, spec: ContainerSpec) -> None:
    image = spec.image
    name, _, digest = image.partition("@")
    untagged = not digest and ":" not in name.rpartition("/")[2]
    # Where no account is given, docker's own configuration says which one to use.
    account = (
        {"username": spec.registry[0], "password": spec.registry[1]} if spec.registry else None
    )
    layers: dict[str, tuple[int, int]] = {}
    began = told = time.monotonic()
    _log.info("pulling image %s", image)
    try:
        for event in api.pull(
            image,
            tag="latest" if untagged else None,
            stream=True,
            decode=True,
            auth_config=account,
        ):
            if "error" in event:
                raise PullError(str(event["error"]))
            if CleanroomEnvironment.given_up():
                raise PullError("another service failed meanwhile, or the start was interrupted")
            _note(layers, event)
            now = time.monotonic()
            if layers and now - told >= max(1, (now - began) / 5):
                told = now
                done, total = (sum(part) / 1e6 for part in zip(*layers.values(), strict=True))
                _log.info("pulling image %s: %.0f of %.0f MB", image, done, total)
    except APIError as exc:
        raise PullError(str(exc.explanation or exc)) from exc
    _log.info("pulled image %s in %.1f s", image, time.monotonic() - began)


def _note(layers: dict[str, tuple[int, int]], event: Mapping[str, Any]) -> None:
    """Note how many bytes of a layer have come, of how many."""
    sizes: Mapping[str, int] = event.get("progressDetail") or {}
    if event.get("status") == "Downloading" and "total" in sizes:
        layers[event["id"]] = (sizes.get("current", 0), sizes["total"])
    elif event.get("status") == "Download complete" and event["id"] in layers:
        total = layers[event["id"]][1]
        layers[event["id"]] = (total, total)


@contextmanager
def _environment_kept() -> Generator[None]:
    """Undo that testcontainers writes the address of a docker context into DOCKER_HOST."""
    with _client_lock:
        before = os.environ.get("DOCKER_HOST")
        try:
            yield
        finally:
            if before is None:
                os.environ.pop("DOCKER_HOST", None)
            else:
                os.environ["DOCKER_HOST"] = before


def _client_options(engine: Engine, socket_url: str) -> dict[str, Any]:
    return {"version": _api_version(engine), "environment": {"DOCKER_HOST": socket_url}}


def _api_version(engine: Engine) -> str:
    """Ask for the version to speak. Docker's client would leave a socket open if that failed."""
    status, body = ask(engine.warden_record(), "GET", "/version")
    try:
        return str(json.loads(body)["ApiVersion"])
    except (ValueError, KeyError, TypeError):
        raise ConnectionError(f"status {status}: {reason_in(body)[:500]}") from None
