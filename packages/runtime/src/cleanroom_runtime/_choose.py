"""Choosing the backend of a service, and saying why.

`auto` is honest. An image that was named is a promise: it runs if an engine answers, and only a
local server of the same major version may stand in for an official image. With no image, a local
server is enough.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cleanroom import ConfigurationError, ContainerError, ProcessError, ServiceError
from cleanroom_runtime._specs import UNKNOWN_VERSION, Backend, BackendChoice, LocalServer

if TYPE_CHECKING:
    from cleanroom_runtime._engine import Engine

BACKEND_VARIABLE = "CLEANROOM_BACKEND"
_CHOICES: tuple[BackendChoice, ...] = ("auto", "process", "container", "external")


class Wanted(NamedTuple):
    """What a plugin asks for.

    Attributes:
        service: The service's name, for messages.
        backend: The backend asked for in code or configuration.
        image: The image that was named, if any.
        default_image: The image to run where none was named; none if the plugin has none.
        official_image: Name of the image a local server may stand in for (`"postgres"`).
        url: Address of a server somebody else runs, if one was given.
        local_servers: Finds the servers of this kind on this machine, the best first. Only as
            many are asked for as are needed.
        install_hint: Says how to get a local server, of this major version if one is given.
        same_service: Whether image and local server are the same service by the user's own word,
            so that there is no version to hold the one to.
        container_only: Whether there is nothing to run but the image.
        url_reason: Says where that address is from.
    """

    service: str
    backend: BackendChoice
    image: str | None
    default_image: str | None
    official_image: str | None
    url: str | None
    local_servers: Callable[[], Iterable[LocalServer]]
    install_hint: Callable[[str | None], str]
    same_service: bool = False
    container_only: bool = False
    url_reason: str = "a URL was given"


class Choice(NamedTuple):
    """The backend chosen, the reason in words, and what it will run."""

    backend: Backend
    reason: str
    server: LocalServer | None = None
    engine: Engine | None = None
    image: str | None = None
    url: str | None = None

    def __repr__(self) -> str:
        """Say no more: a traceback shows it, and there may be a password in the URL."""
        return f"<{self.backend}: {self.reason}>"


def url_variable(service: str) -> str:
    """Return the name of the environment variable with the URL of a service somebody else runs."""
    return f"CLEANROOM_{service.upper().replace('-', '_')}_URL"


def choose(wanted: Wanted) -> Choice:
    """Choose a backend and say why.

    Raises:
        ConfigurationError: `CLEANROOM_BACKEND` is none of the choices, or what the backend asked
            for needs was not given.
        ContainerError: A container was asked for and no engine answers.
        ProcessError: A process was asked for and no local server fits.
        ServiceError: Nothing on this machine can serve.
    """
    backend, why = _asked_for(wanted)
    if wanted.container_only:
        return _only_container(wanted, backend)
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
            return choice, f"{BACKEND_VARIABLE}={choice} is set"
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
            f"{why}, but there is no URL of a running server",
            service=wanted.service,
            backend="external",
            hint=f"give url=... to the plugin, or set {url_variable(wanted.service)}",
        )
    return Choice("external", why, url=wanted.url)


def _container(wanted: Wanted, why: str) -> Choice:
    image = wanted.image or wanted.default_image
    if image is None:
        raise ConfigurationError(
            f"{why}, but no image was named",
            service=wanted.service,
            backend="container",
            hint="name an image, or use backend='process'",
        )
    engine = _find_engine()
    if engine.answers:
        return Choice("container", why, engine=engine.found, image=image)
    raise ContainerError(
        f"{why}, but no container engine answers ({engine.reason})",
        service=wanted.service,
        backend="container",
        hint=engine.hint if wanted.container_only else f"{engine.hint}; or use backend='process'",
    )


def _only_container(wanted: Wanted, asked: BackendChoice) -> Choice:
    if wanted.url:
        raise ConfigurationError(
            f"{url_variable(wanted.service)} is set, but it always runs in a container",
            service=wanted.service,
            hint="unset it: a server that somebody else runs needs no plugin of this kind",
        )
    why = "it always runs in a container"
    ignored = asked not in ("auto", "container")
    return _container(wanted, f"{why}, also with {BACKEND_VARIABLE}={asked}" if ignored else why)


def _process(wanted: Wanted, why: str) -> Choice:
    search = _find_server(wanted)
    if search.fitting is not None:
        return Choice("process", f"{why}: {_stands_in(wanted, search)}", server=search.fitting)
    raise ProcessError(
        f"{why}, but {search.failure(wanted.image)}",
        service=wanted.service,
        backend="process",
        hint=_either(search.ways_out(wanted)),
    )


def _auto(wanted: Wanted) -> Choice:
    if wanted.url:
        return Choice("external", wanted.url_reason, url=wanted.url)
    return _auto_with_image(wanted, wanted.image) if wanted.image else _auto_without_image(wanted)


def _auto_with_image(wanted: Wanted, image: str) -> Choice:
    engine = _find_engine()
    if engine.answers:
        reason = f"image {image} was named and an engine answers ({engine.reason})"
        return Choice("container", reason, engine=engine.found, image=image)
    search = _find_server(wanted)
    if search.fitting is not None:
        reason = f"no container engine answers: {_stands_in(wanted, search)}"
        return Choice("process", reason, server=search.fitting)
    raise ServiceError(
        f"image {image} cannot run, because no container engine answers ({engine.reason}), and "
        f"{search.failure('it')}",
        service=wanted.service,
        hint=_either([engine.hint, *search.ways_out(wanted)]),
    )


def _auto_without_image(wanted: Wanted) -> Choice:
    search = _find_server(wanted)
    if search.fitting is not None:
        reason = f"no image was named: {_stands_in(wanted, search)}"
        return Choice("process", reason, server=search.fitting)
    ways_out = search.ways_out(wanted)
    trouble = search.failure(None)
    if wanted.default_image:
        engine = _find_engine()
        if engine.answers:
            reason = f"{trouble}, and an engine answers ({engine.reason})"
            return Choice("container", reason, engine=engine.found, image=wanted.default_image)
        trouble += f", and no container engine answers ({engine.reason})"
        ways_out.append(engine.hint)
    raise ServiceError(trouble, service=wanted.service, hint=_either(ways_out))


class _EngineSearch(NamedTuple):
    """What the search for an engine came to."""

    found: Engine | None
    reason: str
    """Where it was found; or every place that was tried, and why in vain."""
    hint: str = ""

    @property
    def answers(self) -> bool:
        return self.found is not None


def _find_engine() -> _EngineSearch:
    # Not at the top: most runs with a local server need no engine.
    from cleanroom_runtime._engine import NoEngine, find_engine

    engine = find_engine()
    if isinstance(engine, NoEngine):
        return _EngineSearch(None, engine.reason, engine.hint)
    return _EngineSearch(engine, engine.source)


class _ServerSearch(NamedTuple):
    """What the search for a local server came to."""

    fitting: LocalServer | None = None
    others: Sequence[LocalServer] = ()
    major: str | None = None
    """The major version that the image promises."""
    refusal: str = ""
    """Why nothing can stand in for the image, whatever is there."""

    def failure(self, image: str | None) -> str:
        """Say why none can stand in for the image, and which versions were found where."""
        if not image or not (self.refusal or self.major):
            return "no server was found on this machine"
        because = self.refusal or f"it promises version {self.major}"
        return (
            f"no server on this machine can stand in for {image}, because {because}; "
            f"found here: {', '.join(map(_found_at, self.others)) or 'none'}"
        )

    def ways_out(self, wanted: Wanted) -> list[str]:
        """Say what would help, in this very case."""
        ways = [] if self.refusal else [wanted.install_hint(self.major)]
        if wanted.official_image and wanted.image and self.others:
            majors = dict.fromkeys(server.major for server in self.others)
            images = ", ".join(f"{wanted.official_image}:{major}" for major in majors)
            ways.append(f"name no image, or one of {images}, to use what was found here")
        return ways


def _find_server(wanted: Wanted) -> _ServerSearch:
    """Look for the first local server that keeps the promise of the image, and no further."""
    major, refusal = _promise(wanted)
    others: list[LocalServer] = []
    for server in wanted.local_servers():
        if not refusal and major in (None, server.major):
            return _ServerSearch(server, others, major)
        others.append(server)
    return _ServerSearch(None, others, major, refusal)


def _promise(wanted: Wanted) -> tuple[str | None, str]:
    """The major version an image promises, if any; and why nothing can stand in for it, if so."""
    if wanted.image is None or wanted.same_service:
        return None, ""
    from cleanroom_runtime._image import parse_image

    image = parse_image(wanted.image)
    if wanted.official_image is None or not image.official(wanted.official_image):
        return None, "it is not the official image"
    if image.digest is not None:
        return None, "its digest promises that very image"
    if image.major is None and image.tag not in (None, "latest"):
        return None, f"its tag {image.tag!r} names no version"
    return image.major, ""


def _stands_in(wanted: Wanted, search: _ServerSearch) -> str:
    server = search.fitting
    assert server is not None  # noqa: S101 - asked only where one was found
    named = server.source
    if server.version != UNKNOWN_VERSION:
        named = f"version {server.version} from {named}"
    return f"{named} stands in for {wanted.image}" if wanted.image else named


def _found_at(server: LocalServer) -> str:
    folder = str(server.executable.parent)
    return f"{server.version} in {folder}" + (
        f" ({server.source})" if server.source != folder else ""
    )


def _either(ways: Sequence[str]) -> str:
    return "; or ".join(way for way in ways if way)
