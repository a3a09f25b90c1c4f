"""Image references: who made an image, and which version its tag promises."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cleanroom import ValidationError

HINT_FOR_NAME = (
    "the name of an image is lower case; that of a registry before it needs a dot or a port for "
    "older engines, unless it is localhost"
)

_HUB = "docker.io"
_LIBRARY = "library"
_NAME_LIMIT = 255

# The grammar of the distribution project's package `reference`.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_HOST = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_HOST}(?:\.{_HOST})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(
    r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
)  # fmt: skip
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image by name.

    Attributes:
        registry: Host, and port if any, of the registry; `None` for Docker Hub.
        repository: The full path there, for instance `"library/postgres"`.
        tag: The tag, if one was given.
        digest: The digest, if one was given.
    """

    registry: str | None
    repository: str
    tag: str | None
    digest: str | None

    def official(self, name: str) -> bool:
        """Whether this is Docker Hub's image `name`, an official one if it has no slash."""
        path = name if "/" in name else f"{_LIBRARY}/{name}"
        return self.registry is None and self.repository == path

    @property
    def major(self) -> str | None:
        """The major version the tag promises: `"15"` for `15-alpine`, `None` for `latest`."""
        found = re.match(r"[0-9]+", self.tag or "")
        return found.group() if found else None


def parse_image(reference: str, argument: str = "image") -> ImageReference:
    """Take an image reference apart, as the engine would.

    Args:
        reference: For instance `"postgres:15-alpine"` or `"registry.example:5000/team/db"`.
        argument: The argument it was given as, for the error.

    Raises:
        ValidationError: It is malformed; names the argument, the value and what is wrong.
    """
    name, _, digest = reference.partition("@")
    path, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        path, colon, tag = name, "", ""
    registry, repository = _split_registry(path)
    if problem := (
        _problem_of_name(path, registry, repository)
        or (bool(colon) and not _TAG.fullmatch(tag) and f"malformed tag {tag!r}")
        or ("@" in reference and not _DIGEST.fullmatch(digest) and f"malformed digest {digest!r}")
    ):
        raise ValidationError(
            f"{argument}={reference!r} is not an image reference: {problem}",
            hint="write it like 'name:tag' or 'registry:port/folder/name:tag'",
        )
    return ImageReference(registry, repository, tag or None, digest or None)


def _split_registry(path: str) -> tuple[str | None, str]:
    """Tell a registry from a folder the way the engine does, by the look of the first part."""
    first, slash, rest = path.partition("/")
    is_host = first == "localhost" or any(sign in first for sign in ".:") or first != first.lower()
    if not slash or not is_host:
        first, rest = _HUB, path
    if first.removeprefix("index.") != _HUB:
        return first, rest
    return None, rest if "/" in rest else f"{_LIBRARY}/{rest}"


def _problem_of_name(path: str, registry: str | None, repository: str) -> str | None:
    if not path:
        return "it has no name"
    if len(path) > _NAME_LIMIT:
        return f"the name is longer than {_NAME_LIMIT} characters"
    if registry is not None and not _REGISTRY.fullmatch(registry):
        return f"malformed registry {registry!r}"
    if _IMAGE_ID.fullmatch(path):
        return "it is an image's id, not its name"
    if not _PATH.fullmatch(repository):
        shown = repository.removeprefix(f"{_LIBRARY}/")
        return (
            f"the name {shown!r} has upper-case letters"
            if _PATH.fullmatch(repository.lower())
            else f"malformed name {shown!r}"
        )
    return None
