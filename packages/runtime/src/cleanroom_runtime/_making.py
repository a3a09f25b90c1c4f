"""What modules of fixtures are written with, and their users give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, cast, runtime_checkable

import pytest

if TYPE_CHECKING:
    from cleanroom import ServiceHandle, ServicePlugin

Service: TypeAlias = "str | ServicePlugin"
"""The name of a declared service, or a plugin for one that is not declared."""
Scope = Literal["function", "class", "module", "package", "session"]
"""How long pytest uses what a fixture gave."""


@runtime_checkable
class Sealable(Protocol):
    """What a fixture named for a service and `_template` gives: content to make slices with."""

    def seal(self) -> ServiceHandle:
        """End the writing, and return the handle by which slices with this content are leased."""
        ...


def sealed(name: str, template: object) -> ServiceHandle:
    """Return the handle by which slices are leased with the content of a template.

    Args:
        name: Of the fixture that gave the template.
        template: What it gave.

    Raises:
        ConfigurationError: That is no template, such as the `None` of a fixture without `return`.
    """
    from cleanroom import ConfigurationError

    if not isinstance(template, Sealable):
        raise ConfigurationError(
            f"the fixture {name} gave {template!r} and not a template",
            hint=f"end it with: return {name}",
        )
    return template.seal()


def several(services: Sequence[Service]) -> Sequence[Service] | None:
    """Return the parameters of a fixture that serves these: where several, each in turn."""
    return services if len(services) > 1 else None


def name_of(service: Service) -> str:
    """Return the name of a service, for instance as the `ids` of a fixture."""
    return service if isinstance(service, str) else service.name


def chosen(request: pytest.FixtureRequest, services: Sequence[Service]) -> Service | None:
    """Return which of its services a fixture serves this time; `None` for the default one."""
    of_one = services[0] if services else None
    return cast("Service | None", getattr(request, "param", of_one))
