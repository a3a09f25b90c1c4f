"""What went wrong while a container was started, in words that help."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from docker.errors import APIError, DockerException, ImageNotFound
from requests import RequestException
from urllib3.exceptions import HTTPError

from cleanroom import ContainerError
from cleanroom._secrets import is_secret_key
from cleanroom_runtime._archive import FileError
from cleanroom_runtime._container_spec import ContainerSpec
from cleanroom_runtime._docker import PullError, RyukError
from cleanroom_runtime._engine import Engine, in_words
from cleanroom_runtime._image import HINT_FOR_NAME
from cleanroom_runtime._spellings import hide_all

_SIGNS_OF_REFUSAL = ("denied", "unauthorized", "authentication", "credentials", "not exist")
_TRANSLATED = (
    DockerException, RequestException, HTTPError, PullError, FileError, RyukError, OSError,
)  # fmt: skip


@contextlib.contextmanager
def translated(service_name: str, spec: ContainerSpec, engine: Engine) -> Generator[None]:
    """Raise what the docker client or the engine raises as a `ContainerError`, secrets removed."""
    try:
        yield
    except ContainerError as exc:
        message, hint, tail, cause = exc.message, exc.hint, exc.log_tail, exc.__cause__
    except _TRANSLATED as exc:
        (message, hint), tail, cause = _explained(exc, spec, engine), None, exc
    else:
        return
    secrets = [value for key, value in spec.env.items() if is_secret_key(key)]
    secrets += spec.registry[1:] if spec.registry else ()
    hide = hide_all(secrets)
    raise ContainerError(
        hide(message),
        service=service_name,
        backend="container",
        log_tail=hide(tail) if tail else None,
        hint=hide(hint) if hint else None,
    ) from cause


def is_port_conflict(exc: BaseException) -> bool:
    """Whether a container did not start because somebody took the port the engine had chosen."""
    if not isinstance(exc, APIError):
        return False
    text = str(exc.explanation).lower()
    return "port is already allocated" in text or "address already in use" in text


def _explained(exc: Exception, spec: ContainerSpec, engine: Engine) -> tuple[str, str]:
    """Return what happened and what to do."""
    image = spec.image
    text = str(exc.explanation if isinstance(exc, APIError) else exc).strip()
    if "no space left on device" in text.lower():
        return (
            f"the engine's disk is full: {text}",
            "docker system df shows what takes the room, docker system prune frees some",
        )
    if isinstance(exc, PullError):
        hint = _hint_for_pull(text, image, account_given=spec.registry is not None)
        return f"image {image!r} could not be pulled: {text}", hint
    if isinstance(exc, FileError):
        return f"a file for the container is missing: {text}", "see to it that it can be read"
    if isinstance(exc, RyukError):
        return f"Ryuk could not be started: {text}", "see to its image, or unset CLEANROOM_RYUK"
    if isinstance(exc, ImageNotFound):
        return (
            f"the engine has no image {image!r}"
            + (", and pull='never' forbids to get it" if spec.pull == "never" else ""),
            f"docker pull {image}" + (", or pull='missing'" if spec.pull == "never" else ""),
        )
    if is_port_conflict(exc):
        return (
            f"every port the engine chose was taken by another program: {text}",
            "end programs that take ports in the range the engine chooses from",
        )
    if isinstance(exc, APIError):
        return (
            f"the engine refused to run image {image!r}: {text}",
            "check image, command, user, files and limits of the container",
        )
    if _has_cause(exc, PermissionError):
        return (
            f"no permission to use the engine at {engine.url}",
            "let this user open the socket (on most systems: members of the group 'docker' may)",
        )
    reason = in_words(exc) if isinstance(exc, OSError) and exc.strerror else text
    return (
        f"the engine stopped answering: {reason}",
        f"the engine is {engine.url} (from {engine.source}); is it still running?",
    )


def _hint_for_pull(text: str, image: str, *, account_given: bool) -> str:
    text = text.lower()
    if "invalid reference" in text:
        return HINT_FOR_NAME
    if "toomanyrequests" in text or "rate limit" in text:
        return "log in to the registry for a higher limit (docker login), or use a mirror"
    if any(sign in text for sign in _SIGNS_OF_REFUSAL):
        if account_given:
            return "check the image's name, and the user name and password for its registry"
        return f"check the image's name; if it is private, docker login, then docker pull {image}"
    if "not found" in text or "manifest unknown" in text:
        return "check the image's name and tag"
    return f"see whether the engine reaches the registry: docker pull {image}"


def _has_cause(exc: BaseException | None, kind: type[BaseException]) -> bool:
    while exc is not None:
        if isinstance(exc, kind) or any(isinstance(part, kind) for part in exc.args):
            return True
        exc = exc.__cause__ or exc.__context__
    return False
