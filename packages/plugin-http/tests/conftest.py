"""What the tests of the plugin share: a command, certificates, and what starts a plugin."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from cleanroom import ServiceHandle
from cleanroom_plugin_http import HttpPlugin
from tests.availability import cannot_run

Shop = Callable[..., HttpPlugin]
Start = Callable[[HttpPlugin], ServiceHandle]


def shop_command(*options: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("shop.py")), "--port", "{port}", *options]


@pytest.fixture
def command() -> Callable[..., Sequence[str]]:
    """The command that runs the service of the tests, with options."""
    return shop_command


@pytest.fixture
def shop() -> Shop:
    """Makes a plugin for the service of the tests: options of its command, then arguments."""

    def make(*options: str, **arguments: object) -> HttpPlugin:
        arguments = {"start_timeout": 20.0, **arguments}
        return HttpPlugin("api", command=shop_command(*options), **arguments)  # type: ignore[arg-type]

    return make


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a plugin for this test alone."""
    started: list[tuple[HttpPlugin, ServiceHandle]] = []

    def start(plugin: HttpPlugin) -> ServiceHandle:
        handle = plugin.start()
        started.append((plugin, handle))
        return handle

    yield start
    for plugin, handle in started:
        plugin.stop(handle)


@pytest.fixture(scope="session")
def running() -> Iterator[ServiceHandle]:
    """The service of the tests, running, for tests that leave it as it is."""
    plugin = HttpPlugin("api", command=shop_command())
    handle = plugin.start()
    yield handle
    plugin.stop(handle)


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No container engine answers."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nobody/listens/here.sock")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate for 127.0.0.1 that is its own authority."""
    return _certificate(tmp_path_factory.mktemp("tls"), "IP:127.0.0.1,DNS:localhost")


@pytest.fixture(scope="session")
def certificate_of_another(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for another host."""
    return _certificate(tmp_path_factory.mktemp("tls"), "DNS:shop.example")


def _certificate(folder: Path, names: str) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        cannot_run("there is no openssl to make certificates with")
    arguments = ["-newkey", "rsa:2048", "-noenc", "-days", "2", "-subj", "/CN=shop"]
    extension = ["-addext", f"subjectAltName={names}"]
    files = ["-keyout", "key.pem", "-out", "certificate.pem"]
    command = [openssl, "req", "-x509", *arguments, *extension, *files]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "certificate.pem").read_text())
    return both
