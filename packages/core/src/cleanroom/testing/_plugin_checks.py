"""Checks that need no running service."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import pytest

from cleanroom import (
    API_VERSION,
    CleanroomError,
    HealthStatus,
    ServiceHandle,
    ServicePlugin,
    ValidationError,
)
from cleanroom._protocol import missing_members
from cleanroom.testing._service import ask
from cleanroom.testing._verdict import reject, require

ALWAYS_WRONG: Mapping[str, object] = {
    "name": "",
    "image": "",
    "port": 70_000,
    "backend": "no-such-backend",
    "url": "no url",
    "start_timeout": -1,
    "health_timeout": -1,
}
"""A wrong value for arguments, by the names that these have in every plugin."""


def is_a_plugin(plugin: object) -> None:
    """It has the four members, a name that stays, and the API version of this core."""
    kind = type(plugin).__name__
    require(
        not isinstance(plugin, type),
        "the fixture `plugin` returns a class",
        "return an object of it",
    )
    missing = missing_members(plugin)
    require(
        not missing, f"{kind} lacks {', '.join(missing)}", "add them: a plugin has four members"
    )
    names = [getattr(plugin, "name", None) for _ in range(2)]
    require(
        isinstance(names[0], str) and names[0] and names[0] == names[1],
        f"the name of {kind} is {' and then '.join(map(repr, dict.fromkeys(names)))}",
        "let `name` be the text that the constructor was given, the same each time",
    )
    version = getattr(plugin, "API_VERSION", API_VERSION)
    require(
        version == API_VERSION,
        f"{kind} was written for plugin API {version}, while this cleanroom-core has {API_VERSION}",
        f"see the changelog of cleanroom-core, and set API_VERSION = {API_VERSION}",
    )


def has_a_repr(plugin: ServicePlugin) -> None:
    """The plugin's repr is one line with class and name."""
    shown, kind = repr(plugin), type(plugin).__name__
    require(
        kind in shown and plugin.name in shown and "\n" not in shown,
        f"the repr of the plugin is {shown.splitlines()[0]!r}, which does not tell plugins apart",
        f"give {kind} a __repr__ such as {kind}(name={plugin.name!r})",
    )


def never_started(plugin: ServicePlugin) -> ServiceHandle:
    """Return a handle of no service at all."""
    return ServiceHandle("never-started", plugin.name, {})


def health_of_a_stranger(plugin: ServicePlugin) -> None:
    """Of a service that it does not know, the plugin cannot tell how it is."""
    status = ask(plugin, never_started(plugin), "a service that was never started")
    require(
        status is HealthStatus.UNKNOWN,
        f"health_check of a service that was never started says {status.name}",
        "return HealthStatus.UNKNOWN for a handle whose id is of no service of the plugin",
    )


def stop_of_a_stranger(plugin: ServicePlugin) -> None:
    """Stopping what is no service of the plugin is an error of our tree."""
    mend = "raise cleanroom.ServiceError for a handle whose id is of no service of the plugin"
    try:
        plugin.stop(never_started(plugin))
    except CleanroomError as error:
        require(
            plugin.name in str(error),
            f"the error of stopping a service that was never started names no service: {error}",
            "give the error service=self.name",
        )
        refuse_lost_cause(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the wrong one
        reject(
            "stopping a service that was never started raised "
            f"{type(error).__name__}, which is no CleanroomError: {error}",
            mend,
        )
    else:
        reject("stopping a service that was never started went well", mend)


def refuse_lost_cause(error: BaseException) -> None:
    """Fail where an error was raised because of another one, and does not say so."""
    context = error.__context__
    require(
        error.__cause__ is not None or context is None,
        f"{type(error).__name__} was raised while a {type(context).__name__} was handled, and is "
        "not chained to it",
        "write `raise ... from error`, so that the cause is seen",
    )


def refuse_lax_constructor(plugin: ServicePlugin, wrong: Mapping[str, object]) -> None:
    """Fail where the plugin's class takes a wrong argument, or refuses it in unhelpful words.

    Args:
        plugin: An object of the class, from which the other arguments are taken.
        wrong: A wrong value for each argument; those the constructor does not have are left out.
    """
    kind = type(plugin)
    parameters = inspect.signature(kind).parameters
    tried = {name: value for name, value in wrong.items() if name in parameters}
    if not tried:
        pytest.skip(f"{kind.__name__} takes none of the arguments {', '.join(wrong)}")
    needed = {
        name: _value_in(plugin, name)
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    for name, value in tried.items():
        shown = f"{kind.__name__}({name}={value!r})"
        try:
            kind(**{**needed, name: value})
        except ValidationError as error:
            said = str(error)
            require(
                name in said and (repr(value) in said or f"{value or error!s}" in said),
                f"{shown} raises a ValidationError that does not name argument and value: {said}",
                f'let it say f"{name} is {{{name}!r}}"',
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the wrong one
            reject(
                f"{shown} raises {type(error).__name__}: {error}",
                "raise cleanroom.ValidationError in the constructor, naming argument and value",
            )
        else:
            reject(
                f"{shown} is accepted",
                f"check {name} in the constructor, and raise cleanroom.ValidationError",
            )


def _value_in(plugin: ServicePlugin, argument: str) -> object:
    """Return what an object was given for an argument, as it has kept it."""
    return getattr(plugin, argument, getattr(plugin, f"_{argument}", None))
