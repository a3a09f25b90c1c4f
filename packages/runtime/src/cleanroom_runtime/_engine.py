"""Which container engine there is, found without asking more than its socket."""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from cleanroom import ContainerError

_CONNECT_TIMEOUT = 1.0
_DOCKER_SOCKET = "/var/run/docker.sock"
_PODMAN_SOCKET = "/run/podman/podman.sock"


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine: Docker, Podman, or what speaks the same HTTP API.

    Attributes:
        url: `unix://PATH`, `tcp://HOST:PORT` or `ssh://USER@HOST`.
        source: What named it, in words for people: `"DOCKER_HOST"`, `"docker context 'x'"`.
        certificates: Folder with `ca.pem`, `cert.pem` and `key.pem`, where it is spoken to by TLS.
        tls: Whether it is spoken to by TLS.
        verify: Whether its certificate must be good.
    """

    url: str
    source: str
    tls: bool = False
    certificates: str | None = None
    verify: bool = True

    @property
    def host(self) -> str:
        """The name or address at which ports published by the engine are reached."""
        return urlsplit(self.url).hostname or "127.0.0.1"

    @property
    def local(self) -> bool:
        """Whether the engine runs here, so that a port of 127.0.0.1 there is one of ours."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def answers(self) -> bool:
        """Whether somebody listens; takes a second at most. An engine behind ssh is trusted."""
        return self.trouble() is None

    def trouble(self) -> str | None:
        """Return why nobody can be reached, or `None` when somebody listens."""
        record = self.warden_record()
        try:
            if "socket" in record:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                    sock.settimeout(_CONNECT_TIMEOUT)
                    sock.connect(record["socket"])
            elif "host" in record:
                socket.create_connection((record["host"], record["port"]), _CONNECT_TIMEOUT).close()
        except OSError as exc:
            return in_words(exc)
        return None

    def warden_record(self) -> dict[str, Any]:
        """Return where the engine is as plain data, see `_warden._engine_api`."""
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return {"socket": parts.path}
        if parts.scheme == "ssh":
            port = ["-p", str(parts.port)] if parts.port else []
            user = ["-l", parts.username] if parts.username else []
            return {"ssh": [*user, *port, "--", self.host]}
        record: dict[str, Any] = {
            "host": self.host,
            "port": parts.port or (2376 if self.tls else 2375),
        }
        if self.tls:
            record["tls"] = {"verify": self.verify, "certificates": self.certificates}
        return record


@dataclass(frozen=True, slots=True)
class NoEngine:
    """No engine answers.

    Attributes:
        tried: Every place that was asked, and why that was in vain.
        hint: What to do about it.
    """

    tried: tuple[tuple[str, str], ...]
    hint: str

    @property
    def reason(self) -> str:
        """Every place and why, in one line."""
        return "; ".join(f"{place}: {why}" for place, why in self.tried)

    def error(self, service: str | None = None) -> ContainerError:
        """Return the error to raise where an engine is a must."""
        message = f"no container engine answers: {self.reason}"
        return ContainerError(message, service=service, backend="container", hint=self.hint)


def find_engine() -> Engine | NoEngine:
    """Find the engine that `docker` would use, else a running one in the usual places.

    Who names an engine, by `DOCKER_HOST` or a docker context, means that one and no other.
    """
    named = _from_environment() or _from_context()
    if isinstance(named, NoEngine):
        return named
    candidates = [named] if named else _usual_places()
    tried: list[tuple[str, str]] = []
    for engine in candidates:
        trouble = engine.trouble()
        if trouble is None:
            return engine
        tried.append((f"{engine.source} {engine.url}", trouble))
    return NoEngine(tuple(tried), _hint(named, tried))


def in_words(exc: OSError) -> str:
    """Say why an engine cannot be reached."""
    if isinstance(exc, FileNotFoundError):
        return "no such socket"
    if isinstance(exc, PermissionError):
        return "permission denied"
    if isinstance(exc, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(exc, TimeoutError) or exc.errno == errno.EAGAIN:
        return "no answer in time"
    return exc.strerror or str(exc)


def _from_environment() -> Engine | NoEngine | None:
    url = os.environ.get("DOCKER_HOST", "").strip()
    if not url:
        return None
    verify = bool(os.environ.get("DOCKER_TLS_VERIFY"))
    tls = verify or bool(os.environ.get("DOCKER_TLS"))
    folder = os.environ.get("DOCKER_CERT_PATH") or str(_docker_folder())
    return _checked(url, "DOCKER_HOST", tls=tls, certificates=folder, verify=verify)


def _from_context() -> Engine | NoEngine | None:
    """Return the engine of the current docker context, unless that is the default one."""
    name = os.environ.get("DOCKER_CONTEXT") or _read(_docker_folder() / "config.json").get(
        "currentContext"
    )
    if not name or name == "default":
        return None
    source = f"docker context {name!r}"
    folder = hashlib.sha256(str(name).encode()).hexdigest()
    contexts = _docker_folder() / "contexts"
    meta = _read(contexts / "meta" / folder / "meta.json")
    endpoint = meta.get("Endpoints", {}).get("docker", {})
    if not endpoint.get("Host"):
        why = f"there is no such context in {contexts}"
        return NoEngine(((source, why),), "docker context ls shows the contexts there are")
    certificates = contexts / "tls" / folder / "docker"
    skip = bool(endpoint.get("SkipTLSVerify"))
    tls = str(endpoint["Host"]).startswith("tcp://") and (skip or certificates.is_dir())
    return _checked(
        str(endpoint["Host"]), source, tls=tls, certificates=str(certificates), verify=not skip
    )


def _usual_places() -> list[Engine]:
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    places = {
        _DOCKER_SOCKET: "default socket",
        f"{runtime}/docker.sock": "rootless Docker",
        os.path.expanduser("~/.docker/run/docker.sock"): "Docker Desktop",
        f"{runtime}/podman/podman.sock": "rootless Podman",
        _PODMAN_SOCKET: "Podman",
    }
    return [Engine(f"unix://{path}", source) for path, source in places.items()]


def _checked(
    url: str, source: str, *, tls: bool, certificates: str, verify: bool
) -> Engine | NoEngine:
    """Return the engine a URL names, or say what is wrong with the URL."""
    scheme, separator, rest = url.partition("://")
    problem = None
    try:
        port = urlsplit(url).port
    except ValueError as exc:
        problem, port = str(exc), None
    if not separator or scheme not in ("unix", "tcp", "http", "https", "ssh") or not rest:
        problem = "not an address that begins with unix://, tcp:// or ssh://"
    elif scheme == "unix" and not rest.startswith("/"):
        problem = "not an absolute path"
    if problem:
        return NoEngine(((f"{source} {url!r}", problem),), f"correct {source}, or unset it")
    if scheme in ("unix", "ssh"):
        return Engine(url, source)
    if scheme == "https" or tls:
        folder = certificates if os.path.isdir(certificates) else None
        url = url if port else f"{url.rstrip('/')}:2376"
        verify = verify or scheme == "https"
        return Engine(url, source, tls=True, certificates=folder, verify=verify)
    return Engine(url if port else f"{url.rstrip('/')}:2375", source)


def _docker_folder() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


def _hint(named: Engine | None, tried: list[tuple[str, str]]) -> str:
    if any(why == "permission denied" for _, why in tried):
        return "let this user open the socket (on most systems: members of the group 'docker' may)"
    if named is not None:
        return f"start that engine, or change {named.source}"
    return "start Docker or Podman, or name an engine in DOCKER_HOST"
