"""What is installed: plugins and hook implementations, found by their entry points.

Listing reads metadata only; a plugin is imported when `load_plugin` asks for it. What fails to
load is remembered, so that one broken distribution does not take the others with it.
`CLEANROOM_DISABLE_PLUGINS` switches off what it names, separated by commas: entry points or
whole distributions; `all` switches everything off.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

from cleanroom._errors import PluginError, nearest

if TYPE_CHECKING:
    import pluggy

    from cleanroom._protocol import ServicePlugin

__all__ = ["Installed", "hook_manager", "installed", "load_plugin", "problems", "refresh"]


class Installed(NamedTuple):
    """One entry point of ours, as an installed distribution declares it.

    Attributes:
        name: The service type, for instance `"postgres"`, or the name of a hook entry point.
        value: What it points to, `"package.module:object"`.
        disabled: Whether `CLEANROOM_DISABLE_PLUGINS` switches it off.
        error: Why it failed, if it was asked for and did.
    """

    group: str
    name: str
    value: str
    distribution: str
    version: str
    disabled: bool = False
    error: PluginError | None = None

    def load(self) -> object:
        """Import what it points to; raise `PluginError` from whatever the import raised."""
        from importlib.metadata import EntryPoint

        try:
            return cast(object, EntryPoint(self.name, self.value, self.group).load())
        except (Exception, SystemExit) as exc:
            raise self.failure(f"failed to load: {type(exc).__name__}: {exc}") from exc

    def failure(self, message: str, hint: str | None = None) -> PluginError:
        """Remember and return an error about it, with distribution and version named."""
        origin = f"{self.value}, from {self.distribution} {self.version}"
        _failures[self[:5]] = PluginError(f"{message} ({origin})", plugin=self.name, hint=hint)
        return _failures[self[:5]]


def installed(group: str = "cleanroom.plugins") -> list[Installed]:
    """Return the entry points of `group`, or of `"cleanroom.hooks"`, sorted; import none."""
    global _found
    with _lock:
        if _found is None:
            _found = sorted(_scan())
        found = [entry for entry in _found if entry.group == group]
    off = {_plain(name) for name in os.environ.get("CLEANROOM_DISABLE_PLUGINS", "").split(",")}
    return [
        entry._replace(
            disabled=not off.isdisjoint({"all", _plain(entry.name), _plain(entry.distribution)}),
            error=_failures.get(entry[:5]),
        )
        for entry in found
    ]


def load_plugin(name: str) -> type[ServicePlugin]:
    """Import and return the plugin class of the service type `name`.

    Raises:
        PluginError: It is not installed, disabled, claimed by several distributions, fails to
            load, is no plugin, or was written for another version of the protocol.
    """
    known = installed()
    found = [entry for entry in known if entry.name == name]
    active = [entry for entry in found if not entry.disabled]
    if found and not active:
        raise PluginError("switched off by CLEANROOM_DISABLE_PLUGINS", plugin=name)
    if not active:
        install = f'pip install "cleanroom-plugin-{name}", or the distribution that brings it'
        near = nearest(name, [entry.name for entry in known])
        hint = f"{near} Otherwise: {install}" if near.endswith("?") else f"{near}; {install}"
        raise PluginError("not installed", plugin=name, hint=hint)
    if len(active) > 1:
        claims = " and by ".join(f"{entry.distribution} {entry.version}" for entry in active)
        hint = "uninstall one of them, or name it in CLEANROOM_DISABLE_PLUGINS"
        raise PluginError(f"claimed by {claims}", plugin=name, hint=hint)
    loaded = _checked(active[0], active[0].load())
    _failures.pop(active[0][:5], None)
    return loaded


def hook_manager() -> pluggy.PluginManager:
    """Return the process's manager of hook implementations; others may be registered with it."""
    # No lock: an import that waits for one may be what the holder of the lock waits for.
    return _managers.get("cleanroom") or _managers.setdefault("cleanroom", _load_hooks())


def problems() -> list[PluginError]:
    """Return what failed to load so far; hook implementations are loaded for it."""
    hook_manager()
    return [error for _, error in sorted(_failures.items(), key=lambda item: item[0])]


def refresh() -> None:
    """Forget what was found, so that what was installed since is seen."""
    global _found
    with _lock:
        _found = None
        _managers.clear()
        _failures.clear()


_lock = threading.Lock()
_found: list[Installed] | None = None
_managers: dict[str, pluggy.PluginManager] = {}
_failures: dict[tuple[str, ...], PluginError] = {}  # By what identifies an `Installed`.


def _scan() -> Iterator[Installed]:
    from importlib.metadata import distributions

    seen: set[str] = set()
    for distribution in distributions():
        try:
            if "cleanroom." not in (distribution.read_text("entry_points.txt") or ""):
                continue
            text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
            # To have all of it parsed takes longer than everything else here.
            head = dict(re.findall(r"^(Name|Version): *(\S+)", text, re.MULTILINE)[:2])
            name, version = str(head["Name"]), str(head["Version"])
            points = list(distribution.entry_points)
        except Exception:  # noqa: BLE001, S112 - broken metadata is for pip to report
            continue
        if _plain(name) not in seen:  # The first on the path is the one that is imported.
            seen.add(_plain(name))
            yield from (Installed(p.group, p.name, p.value, name, version) for p in points)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).strip().lower()


def _checked(entry: Installed, loaded: object) -> type[ServicePlugin]:
    from cleanroom._protocol import API_VERSION, missing_members

    wanted = getattr(loaded, "API_VERSION", API_VERSION)
    if wanted != API_VERSION:
        raise entry.failure(
            f"written for plugin API {wanted}, while this cleanroom-core has API {API_VERSION}",
            hint="upgrade whichever of the two is older",
        )
    if not isinstance(loaded, type):
        raise entry.failure("not a plugin: it is not a class")
    if missing := missing_members(loaded):
        raise entry.failure(f"not a plugin: the class lacks {', '.join(missing)}")
    return cast("type[ServicePlugin]", loaded)


def _load_hooks() -> pluggy.PluginManager:
    import pluggy

    from cleanroom import hooks

    manager = pluggy.PluginManager("cleanroom")
    manager.add_hookspecs(hooks)
    for entry in installed("cleanroom.hooks"):
        if not entry.disabled:
            _register(manager, entry)
    return manager


def _register(manager: pluggy.PluginManager, entry: Installed) -> None:
    name = f"{entry.distribution} {entry.version}: {entry.name}"
    try:
        manager.register(entry.load(), name)
        manager.check_pending()
    except PluginError:
        pass  # Remembered.
    except Exception as exc:  # noqa: BLE001 - remembered
        entry.failure(f"its hooks do not fit: {exc}").__cause__ = exc
        if manager.has_plugin(name):
            manager.unregister(name=name)
