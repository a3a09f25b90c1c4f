import base64
import contextlib
import hashlib
import http.server
import io
import json
import random
import re
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import ImageNotFound

from cleanroom import (
    CleanroomEnvironment,
    ContainerError,
    HealthStatus,
    ServiceError,
    ServiceHandle,
)
from cleanroom_runtime import ContainerPlugin
from cleanroom_runtime._container_spec import ContainerSpec
from cleanroom_runtime._engine import Engine
from cleanroom_runtime._images import provide
from cleanroom_runtime._run import Run
from cleanroom_runtime._tunnel import _serve

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """An image registry with one image, which has no program in it."""

    def __init__(self, port: int) -> None:
        self.image = f"127.0.0.1:{port}/team/tiny"
        self.blobs: dict[str, bytes] = {}
        self.refusal: tuple[int, str, str] | None = None
        self.asked: list[str] = []
        self.pulls = 0
        self.account: tuple[str, str] | None = None
        self.pieces, self.pause = 2, 0.0
        self.build(b"hello")

    def build(self, content: bytes) -> None:
        """Make the image anew, with this in its one file."""
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            entry = tarfile.TarInfo("hello")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
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

    @property
    def basic(self) -> str:
        """The account, as HTTP has it."""
        return base64.b64encode(":".join(self.account or ()).encode()).decode()

    def answer(self, path: str, authorization: str | None) -> tuple[int, str, bytes]:
        self.asked.append(path)
        if self.account is not None and authorization != f"Basic {self.basic}":
            errors = {"errors": [{"code": "UNAUTHORIZED", "message": "who is it?"}]}
            return 401, "application/json", json.dumps(errors).encode()
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
            authorization = self.headers.get("Authorization")
            status, kind, content = registry.answer(self.path, authorization)
            self.send_response(status)
            if status == 401 and registry.account is not None:
                self.send_header("WWW-Authenticate", 'Basic realm="images"')
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            digest = hashlib.sha256(content).hexdigest()
            self.send_header("Docker-Content-Digest", f"sha256:{digest}")
            self.end_headers()
            if self.command == "GET":
                large = len(content) > 1_000_000
                piece = len(content) // registry.pieces if large else len(content)
                with contextlib.suppress(ConnectionError):  # the engine may have seen enough
                    for begin in range(0, len(content), piece):
                        time.sleep(registry.pause if begin else 0)
                        self.wfile.write(content[begin : begin + piece])

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
def progress(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is told while images are pulled."""
    caplog.set_level("INFO", "cleanroom.pull")
    return caplog


Pull = Callable[..., None]


@pytest.fixture
def pull(run: Run, engine: Engine) -> Pull:
    """Make sure that the engine has an image."""

    def pull(image: str, policy: Any = "missing", account: tuple[str, str] | None = None) -> None:
        spec = ContainerSpec(image, 80, pull=policy, registry=account)
        provide(run, "box", spec, engine)

    return pull


def failure(pull: Pull, *arguments: Any) -> ContainerError:
    with pytest.raises(ContainerError) as caught:
        pull(*arguments)
    return caught.value


def test_missing_image_is_pulled(
    registry: Registry,
    pull: Pull,
    progress: pytest.LogCaptureFixture,
    docker_engine: docker.DockerClient,
) -> None:
    """An image the engine does not have is pulled, once, and that is told."""
    image = f"{registry.image}:1"
    pull(image)
    assert docker_engine.images.get(image)
    assert progress.messages[0] == f"pulling image {image}"
    assert progress.messages[-1].startswith(f"pulled image {image} in ")
    progress.clear()
    pulls = registry.pulls
    pull(image)
    assert (registry.pulls, progress.messages) == (pulls, [])


def test_how_far_it_is(registry: Registry, pull: Pull, progress: pytest.LogCaptureFixture) -> None:
    """While a pull takes long, how much has come is told about once a second."""
    registry.build(random.randbytes(4_000_000))
    registry.pause = 1.3
    pull(f"{registry.image}:1")
    told = [re.search(r": (\d+) of 4 MB$", message) for message in progress.messages]
    assert 1 <= sum(match is not None and int(match[1]) < 4 for match in told) <= 5


class Failing:
    """A service that fails once an image is being pulled."""

    name = "failing"

    def __init__(self, pulling: Callable[[], bool]) -> None:
        self._pulling = pulling

    def start(self) -> ServiceHandle:
        while not self._pulling():
            time.sleep(0.02)
        raise ServiceError("it failed", service=self.name)

    def stop(self, handle: ServiceHandle) -> None:
        raise AssertionError

    def health_check(self, handle: ServiceHandle) -> HealthStatus:
        raise AssertionError


def test_given_up(registry: Registry, progress: pytest.LogCaptureFixture) -> None:
    """A pull is not waited for where another service has failed meanwhile."""
    registry.build(random.randbytes(4_000_000))
    registry.pieces, registry.pause = 80, 0.25
    began = time.monotonic()
    with CleanroomEnvironment() as env:
        env.register(ContainerPlugin("slow", f"{registry.image}:1", 80))
        env.register(Failing(lambda: bool(progress.messages)))
        with pytest.raises(ServiceError, match="it failed"):
            env.start_all()
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "xdist"])
def test_shown_by_pytest(registry: Registry, pytester: pytest.Pytester, workers: list[str]) -> None:
    """In pytest a pull is shown in the terminal while it goes on, by a worker too; what tests
    write is captured as ever."""
    image = f"{registry.image}:1"
    pytester.makepyfile(f"""
        import pytest
        from cleanroom import ContainerError
        from cleanroom_runtime import ContainerPlugin

        def test_it():
            print("out of sight")
            with pytest.raises(ContainerError):
                ContainerPlugin("tiny", {image!r}, 80).start()
            print("still out of sight")
    """)
    result = pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:cacheprovider", *workers)
    result.assert_outcomes(passed=1)
    shown = [*result.outlines, *result.errlines]
    assert f"cleanroom: pulling image {image}" in shown
    assert any(line.startswith(f"cleanroom: pulled image {image} in ") for line in shown)
    assert not any("sight" in line for line in shown)


def test_quiet_pytest(pytester: pytest.Pytester) -> None:
    """With -q nothing is shown."""
    pytester.makepyfile("""
        import logging

        from cleanroom_runtime import current_run

        def test_it():
            assert current_run()
            logging.getLogger("cleanroom.pull").info("pulling image")
    """)
    result = pytester.runpytest_subprocess("-q", "-p", "no:randomly", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    assert not any("pulling" in line for line in [*result.outlines, *result.errlines])


def test_pull_always(registry: Registry, pull: Pull) -> None:
    """With pull='always' the registry is asked even for an image that is there."""
    pull(f"{registry.image}:1")
    pulls = registry.pulls
    pull(f"{registry.image}:1", "always")
    assert registry.pulls > pulls


def test_only_one_tag(registry: Registry, pull: Pull) -> None:
    """An image without a tag means `latest`, not all its tags."""
    error = failure(pull, registry.image)
    assert error.message.startswith(f"image {registry.image!r} could not be pulled: ")
    assert f"/v2/{registry.image.partition('/')[2]}/manifests/latest" in registry.asked
    assert not any("tags" in path for path in registry.asked)
    assert error.hint == "check the image's name and tag"


def test_digest(registry: Registry, pull: Pull, docker_engine: docker.DockerClient) -> None:
    """An image named by its digest is pulled by it, whatever tag is named as well."""
    digest = f"sha256:{hashlib.sha256(registry.manifest).hexdigest()}"
    for name in (f"{registry.image}@{digest}", f"{registry.image}:some@{digest}"):
        pull(name)
        assert docker_engine.images.get(f"{registry.image}@{digest}")
        docker_engine.images.remove(f"{registry.image}@{digest}", force=True)
    assert not any(path.endswith("/manifests/some") for path in registry.asked)


def test_an_engine_elsewhere(
    registry: Registry, run: Run, engine: Engine, docker_engine: docker.DockerClient
) -> None:
    """An engine that is reached over TCP is told to pull as well."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, engine.warden_record())).start()
        try:
            there = Engine(f"tcp://127.0.0.1:{listener.getsockname()[1]}", "a relay")
            provide(run, "box", ContainerSpec(f"{registry.image}:1", 80), there)
            assert docker_engine.images.get(f"{registry.image}:1")
            run.shut_down()
        finally:
            listener.shutdown(socket.SHUT_RDWR)


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
    registry: Registry, pull: Pull, refusal: tuple[int, str, str], words: str, hint: str
) -> None:
    """What a registry refuses is told in its words, with a hint that fits."""
    registry.refusal = refusal
    error = failure(pull, f"{registry.image}:1")
    assert error.message.startswith(f"image '{registry.image}:1' could not be pulled: ")
    assert words in error.message
    assert hint in str(error.hint)


def test_broken_layer(registry: Registry, pull: Pull) -> None:
    """A download that fails halfway is an error of the pull."""
    registry.blobs = {digest: content[:-1] for digest, content in registry.blobs.items()}
    error = failure(pull, f"{registry.image}:1")
    assert error.message.startswith(f"image '{registry.image}:1' could not be pulled: ")


# ------------------------------------------------------------------- private images


def test_an_account_that_was_given(
    registry: Registry, pull: Pull, docker_engine: docker.DockerClient
) -> None:
    """A private image is pulled with the user name and password that were given."""
    registry.account = ("someone", "hush-hush")
    pull(f"{registry.image}:1", "missing", ("someone", "hush-hush"))
    assert docker_engine.images.get(f"{registry.image}:1")


def test_the_account_of_dockers_configuration(
    registry: Registry,
    pull: Pull,
    docker_engine: docker.DockerClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where none was given, the one that `docker login` has noted is used."""
    registry.account = ("someone", "hush-hush")
    noted = {registry.image.partition("/")[0]: {"auth": registry.basic}}
    tmp_path.joinpath("config.json").write_text(json.dumps({"auths": noted}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    pull(f"{registry.image}:1")
    assert docker_engine.images.get(f"{registry.image}:1")


@pytest.mark.parametrize(
    ("given", "hint"),
    [(("someone", "wrong-one"), "the user name and password"), (None, "docker login")],
)
def test_an_account_that_does_not_fit(
    registry: Registry, pull: Pull, progress: pytest.LogCaptureFixture, given: Any, hint: str
) -> None:
    """A wrong account, or none, is told, and what to do; the password is shown nowhere."""
    registry.account = ("someone", "hush-hush")
    error = failure(pull, f"{registry.image}:1", "missing", given)
    assert "could not be pulled" in error.message
    assert hint in str(error.hint)
    assert "wrong-one" not in str(error) + progress.text


@pytest.mark.parametrize(
    ("policy", "step"), [("never", "GET /images/.*"), ("always", "POST /images/create.*")]
)
def test_a_name_that_the_engine_does_not_take(
    run: Run, faulty_engine: Any, policy: Any, step: str
) -> None:
    """An engine that takes `UPPER` for no registry is said to, and what a name is like."""
    reason = "invalid reference format: repository name must be lowercase"
    faulty_engine.refuse(step, 400, reason)
    with pytest.raises(ContainerError, match=f"'UPPER/box:1'.*: {reason}") as caught:
        provide(run, "box", ContainerSpec("UPPER/box:1", 80, pull=policy), faulty_engine.engine)
    assert "is lower case" in str(caught.value.hint)


def test_an_engine_that_repeats_a_password(run: Run, faulty_engine: Any) -> None:
    """A password for the registry is hidden in what the engine answers."""
    faulty_engine.refuse("POST /images/create", 500, "no luck with hush-hush")
    spec = ContainerSpec("acme/none:1", 80, registry=("someone", "hush-hush"))
    with pytest.raises(ContainerError, match=r"no luck with \*\*\*") as caught:
        provide(run, "box", spec, faulty_engine.engine)
    assert "hush-hush" not in repr(spec) + str(caught.value)
