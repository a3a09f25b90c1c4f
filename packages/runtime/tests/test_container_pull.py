import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from docker.errors import ImageNotFound

from cleanroom import ContainerError
from cleanroom_runtime._container import launch
from cleanroom_runtime._engine import Engine
from cleanroom_runtime._run import Run
from cleanroom_runtime._specs import ContainerSpec

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """An image registry with one image, which has no program in it."""

    def __init__(self, port: int) -> None:
        self.image = f"127.0.0.1:{port}/team/tiny"
        self.blobs: dict[str, bytes] = {}
        self.refusal: tuple[int, str, str] | None = None
        self.asked: list[str] = []
        self.pulls = 0
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            entry = tarfile.TarInfo("hello")
            entry.size = 5
            tar.addfile(entry, io.BytesIO(b"hello"))
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [self._add(layer.getvalue())]},
        }
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": self._described(
                    "application/vnd.docker.container.image.v1+json", json.dumps(config).encode()
                ),
                "layers": [
                    self._described(
                        "application/vnd.docker.image.rootfs.diff.tar", layer.getvalue()
                    )
                ],
            }
        ).encode()

    def _add(self, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return digest

    def _described(self, kind: str, content: bytes) -> dict[str, Any]:
        return {"mediaType": kind, "size": len(content), "digest": self._add(content)}

    def answer(self, path: str) -> tuple[int, str, bytes]:
        self.asked.append(path)
        if path == "/v2/":
            return 200, "application/json", b"{}"
        if self.refusal is not None:
            status, code, message = self.refusal
            errors = {"errors": [{"code": code, "message": message}]}
            return status, "application/json", json.dumps(errors).encode()
        _, _, kind, name = path.rsplit("/", 3)
        if kind == "manifests" and (name == "1" or name.startswith("sha256:")):
            self.pulls += 1
            return 200, MANIFEST, self.manifest
        if kind == "blobs" and name in self.blobs:
            return 200, "application/octet-stream", self.blobs[name]
        errors = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
        return 404, "application/json", json.dumps(errors).encode()


@pytest.fixture
def registry(engine: Engine, docker_engine: docker.DockerClient) -> Iterator[Registry]:
    """A registry on this machine, from which an engine of this machine pulls without TLS."""
    if not engine.url.startswith("unix://"):
        pytest.skip("the engine does not reach a registry on this machine")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, content = registry.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            digest = hashlib.sha256(content).hexdigest()
            self.send_header("Docker-Content-Digest", f"sha256:{digest}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        registry = Registry(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield registry
        finally:
            server.shutdown()
            thread.join()
            for tag in ("1", "latest"):
                try:
                    docker_engine.images.remove(f"{registry.image}:{tag}", force=True)
                except ImageNotFound:
                    continue


@pytest.fixture
def progress() -> list[str]:
    return []


@pytest.fixture
def pull(run: Run, engine: Engine, progress: list[str]) -> Any:
    """Launch the image, which is pulled, but cannot be started; returns that error."""

    def pull(image: str, policy: Any = "missing") -> ContainerError:
        spec = ContainerSpec(image, 80, command=["/hello"], pull=policy)
        with pytest.raises(ContainerError) as caught:
            launch(run, run.new_service_id(), "box", spec, engine, progress=progress.append)
        return caught.value

    return pull


def test_missing_image_is_pulled(
    registry: Registry, pull: Any, progress: list[str], docker_engine: docker.DockerClient
) -> None:
    """An image the engine does not have is pulled, once, and that is told."""
    image = f"{registry.image}:1"
    assert "refused to run image" in pull(image).message
    assert docker_engine.images.get(image)
    assert progress[0] == f"pulling image {image}"
    assert progress[-1].startswith(f"pulled image {image} in ")
    progress.clear()
    pulls = registry.pulls
    pull(image)
    assert (registry.pulls, progress) == (pulls, [])


def test_pull_always(registry: Registry, pull: Any) -> None:
    """With pull='always' the registry is asked even for an image that is there."""
    pull(f"{registry.image}:1")
    pulls = registry.pulls
    pull(f"{registry.image}:1", "always")
    assert registry.pulls > pulls


def test_only_one_tag(registry: Registry, pull: Any) -> None:
    """An image without a tag means `latest`, not all its tags."""
    error = pull(registry.image)
    assert error.message.startswith(f"image {registry.image!r} could not be pulled: ")
    assert f"/v2/{registry.image.partition('/')[2]}/manifests/latest" in registry.asked
    assert not any("tags" in path for path in registry.asked)
    assert error.hint == "check the image's name and tag"


def test_digest(registry: Registry, pull: Any, docker_engine: docker.DockerClient) -> None:
    """An image named by its digest is pulled by it, whatever tag is named as well."""
    digest = f"sha256:{hashlib.sha256(registry.manifest).hexdigest()}"
    for name in (f"{registry.image}@{digest}", f"{registry.image}:some@{digest}"):
        assert "refused to run image" in pull(name).message
        assert docker_engine.images.get(f"{registry.image}@{digest}")
        docker_engine.images.remove(f"{registry.image}@{digest}", force=True)
    assert not any(path.endswith("/manifests/some") for path in registry.asked)


@pytest.mark.parametrize(
    ("refusal", "words", "hint"),
    [
        ((401, "UNAUTHORIZED", "authentication required"), "unauthorized", "docker login"),
        ((403, "DENIED", "access denied"), "denied", "docker login"),
        ((429, "TOOMANYREQUESTS", "slow down"), "toomanyrequests", "docker login"),
        ((500, "UNKNOWN", "it broke"), "500", "docker pull 127.0.0.1"),
    ],
)
def test_registry_refuses(
    registry: Registry, pull: Any, refusal: tuple[int, str, str], words: str, hint: str
) -> None:
    """What a registry refuses is told in its words, with a hint that fits."""
    registry.refusal = refusal
    error = pull(f"{registry.image}:1")
    assert error.message.startswith(f"image '{registry.image}:1' could not be pulled: ")
    assert words in error.message
    assert hint in error.hint


def test_broken_layer(registry: Registry, pull: Any) -> None:
    """A download that fails halfway is an error of the pull."""
    registry.blobs = {digest: content[:-1] for digest, content in registry.blobs.items()}
    error = pull(f"{registry.image}:1")
    assert error.message.startswith(f"image '{registry.image}:1' could not be pulled: ")
