"""What is done through testcontainers and docker's client. Import this when a container starts.

Both take half a second to import.
"""

from __future__ import annotations

import io
import json
import logging
import os
import tarfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from docker.errors import APIError, ImageNotFound
from testcontainers.core.container import DockerContainer, Reaper
from testcontainers.core.labels import create_labels

from cleanroom_runtime._engine import Engine
from cleanroom_runtime._reach import Reach
from cleanroom_runtime._specs import ContainerSpec
from cleanroom_runtime._warden._engine_api import ask, reason_in

Progress = Callable[[str], None]
"""Told in a line what is going on while an image is pulled."""

_client_lock = threading.Lock()
_ryuk_lock = threading.Lock()
_log = logging.getLogger("cleanroom")


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
        reach: How its port is made reachable.

    Attributes:
        settled: Whether the engine is not at work on it any more, so that what can be removed now
            is all there will be.
    """

    def __init__(
        self,
        engine: Engine,
        socket_url: str,
        spec: ContainerSpec,
        name: str,
        labels: dict[str, str],
        reach: Reach,
    ) -> None:
        client = {"version": _api_version(engine), "environment": {"DOCKER_HOST": socket_url}}
        # testcontainers writes the address of a docker context into DOCKER_HOST of this process.
        with _client_lock:
            before = os.environ.get("DOCKER_HOST")
            try:
                super().__init__(spec.image, docker_client_kw=client, env=dict(spec.env), name=name)
            finally:
                if before is None:
                    os.environ.pop("DOCKER_HOST", None)
                else:
                    os.environ["DOCKER_HOST"] = before
        if spec.command is not None:
            self.with_command(list(spec.command))
        self.settled = True
        self._files = spec.files
        self._options: dict[str, Any] = {
            "labels": labels,
            "ports": reach.ports(spec.port),
            "network": reach.network,
            "tmpfs": dict(spec.tmpfs),
            "mem_limit": spec.memory,
            "shm_size": spec.shm_size,
            "user": spec.user,
        }

    def get_image(self, pull: str, progress: Progress | None = None) -> None:
        """Make sure that the engine has the image.

        Raises:
            PullError: It could not be pulled.
            docker.errors.ImageNotFound: It is missing and must not be pulled.
        """
        client = self.get_docker_client().client
        if pull != "always":
            try:
                client.images.get(self.image)
                return
            except ImageNotFound:
                if pull == "never":
                    raise
        _pull(client.api, self.image, progress or _log.info)

    def start(self) -> ServiceContainer:
        """Create and start the container. The image must be there."""
        options = {key: value for key, value in self._options.items() if value is not None}
        if _ryuk_wanted():
            _start_ryuk()
            # Among these is the session that Ryuk watches.
            options["labels"] = create_labels(self.image, options["labels"])
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
        if self._files:
            created.put_archive("/", _archive(self._files))
        created.start()
        return self

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


def _api_version(engine: Engine) -> str:
    """Ask for the version to speak. Docker's client would leave a socket open if that failed."""
    status, body = ask(engine.warden_record(), "GET", "/version")
    try:
        return str(json.loads(body)["ApiVersion"])
    except (ValueError, KeyError, TypeError):
        raise ConnectionError(f"status {status}: {reason_in(body)[:500]}") from None


def _archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode, entry.mtime = len(content), 0o644, int(time.time())
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _pull(api: Any, image: str, progress: Progress) -> None:
    name, _, digest = image.partition("@")
    untagged = not digest and ":" not in name.rpartition("/")[2]
    layers: dict[str, tuple[int, int]] = {}
    began = told = time.monotonic()
    progress(f"pulling image {image}")
    try:
        for event in api.pull(image, tag="latest" if untagged else None, stream=True, decode=True):
            if "error" in event:
                raise PullError(str(event["error"]))
            sizes: dict[str, int] = event.get("progressDetail") or {}
            if event.get("status") == "Downloading" and "total" in sizes:
                layers[event["id"]] = (sizes.get("current", 0), sizes["total"])
            if layers and time.monotonic() - told >= 1:
                told = time.monotonic()
                done, total = (sum(part) / 1e6 for part in zip(*layers.values(), strict=True))
                progress(f"pulling image {image}: {done:.0f} of {total:.0f} MB")
    except APIError as exc:
        raise PullError(str(exc.explanation or exc)) from exc
    progress(f"pulled image {image} in {time.monotonic() - began:.1f} s")
