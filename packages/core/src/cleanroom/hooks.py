"""Hooks: how a distribution takes part without being a plugin.

Name a module of implementations in the entry-point group `cleanroom.hooks`, and mark each
function in it with `hookimpl`. A function takes those arguments of the hook that it wants::

    from cleanroom.hooks import hookimpl


    @hookimpl
    def cleanroom_service_started(handle):
        print(handle.service_name, "is at", handle.host)

Each is called on its own, so one that raises keeps no other from it. Wrappers are not called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast

import pluggy

from cleanroom import discovery
from cleanroom._errors import ConfigurationError, log_failure

if TYPE_CHECKING:
    from cleanroom._protocol import ServiceHandle, ServicePlugin

__all__ = ["fixture_modules", "hookimpl", "hookspec", "notify", "validate"]

hookspec = pluggy.HookspecMarker("cleanroom")
hookimpl = pluggy.HookimplMarker("cleanroom")


@hookspec
def cleanroom_service_started(handle: ServiceHandle) -> None:
    """Observe that a service answers."""


@hookspec
def cleanroom_service_stopped(handle: ServiceHandle) -> None:
    """Observe that a service is gone."""


@hookspec
def cleanroom_service_failed(service_name: str, error: BaseException) -> None:
    """Observe that a service could not be started."""


@hookspec
def cleanroom_validate(plugin: ServicePlugin) -> object:
    """Say what is wrong with a plugin about to start: return a text or several, or raise."""


@hookspec
def cleanroom_fixture_modules() -> object:
    """Return the dotted names of modules that hold pytest fixtures."""


def notify(hook: str, **facts: object) -> None:
    """Call every implementation of the observer `hook`; one that raises is only logged."""
    for owner, _, error in _answers(hook, facts):
        if error is not None:
            log_failure(f"{hook} of {owner}", error)


def validate(plugin: ServicePlugin) -> None:
    """Ask every validator about `plugin`; raise `ConfigurationError` if one objects."""
    answers = [*_answers("cleanroom_validate", {"plugin": plugin})]
    said = [(owner, [str(error)] if error else texts) for owner, texts, error in answers]
    if objections := [f"{text} (says {owner})" for owner, texts in said for text in texts]:
        cause = next((error for _, _, error in answers if error), None)
        raise ConfigurationError("; ".join(objections), service=plugin.name) from cause


def fixture_modules() -> list[str]:
    """Return the modules with pytest fixtures that are installed, each once."""
    modules: list[str] = []
    for owner, texts, error in _answers("cleanroom_fixture_modules", {}):
        modules += [text for text in texts if text not in modules]
        if error is not None:
            log_failure(f"cleanroom_fixture_modules of {owner}", error)
    return modules


def _answers(
    hook: str, facts: dict[str, object]
) -> Iterator[tuple[str, list[str], Exception | None]]:
    """Call each implementation; yield its owner and what it returned or raised."""
    for impl in getattr(discovery.hook_manager().hook, hook).get_hookimpls():
        if impl.hookwrapper or impl.wrapper:
            continue
        try:
            answer = cast(object, impl.function(*(facts[name] for name in impl.argnames)))
            texts = [answer] if isinstance(answer, str) else cast("Iterable[object]", answer or ())
            yield impl.plugin_name, [str(text) for text in texts], None
        except Exception as exc:  # noqa: BLE001 - told to the caller
            yield impl.plugin_name, [], exc
