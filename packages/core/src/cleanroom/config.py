"""Declared services: tables `[tool.cleanroom.services.NAME]` of `pyproject.toml`.

A `cleanroom.toml` may hold them as `[services.NAME]`; in one folder it goes before
`pyproject.toml`. The nearest file that has such a table is read, searching upwards.

`plugin`, `depends_on` and `default` are ours. The other keys are options of the plugin: given to
`from_config(name, options, folder)` of its class, else as keyword arguments to it; `folder` is the
file's. Its signature, and its attribute `CONFIG_KEYS` if there is one, name them. In a text,
`${VAR}` or `${VAR:-default}` is an environment variable, and `{db.url}` a metadata key of the
service `db`, which then starts before. `$${VAR}` and `{{db.url}}` lose one `$` or pair of braces.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from cleanroom import discovery
from cleanroom._errors import ConfigurationError, PluginError, nearest
from cleanroom._protocol import ServiceHandle, ServicePlugin

__all__ = ["DeclaredService", "load_config"]


@dataclass(frozen=True)
class DeclaredService:
    """One declared service. Its texts are filled in when its plugin is built."""

    name: str
    plugin: str
    options: Mapping[str, object] = field(repr=False)
    depends_on: tuple[str, ...]
    default: bool
    source: str
    """File and table: `"/home/me/shop/pyproject.toml [tool.cleanroom.services.db]"`."""
    folder: Path
    """The file's folder, to which relative paths in options are relative."""

    def check(self) -> None:
        """Raise `ConfigurationError` for what is wrong already, without starting anything.

        A plugin that fails to load is none of it: that is said where its service is started.
        """
        self._filled(None)
        with suppress(PluginError):
            self._plugin_class()

    def build(self, handles: Mapping[str, ServiceHandle]) -> ServicePlugin:
        """Make the plugin.

        Args:
            handles: By name, the services that `{name.key}` in options may speak of, as tests see
                them. A plugin's method `view_of(handle)`, if any, says how its service does.

        Raises:
            ConfigurationError: An option, an environment variable or a reference is wrong.
            PluginError: The plugin could not be loaded.
        """
        plugin = self._made(handles)
        view_of = getattr(plugin, "view_of", None)
        seen = {name: view_of(handles[name]) for name in handles} if view_of else handles
        return plugin if seen == handles else self._made(seen)

    def _made(self, handles: Mapping[str, ServiceHandle]) -> ServicePlugin:
        name, options, kind = self.name, self._filled(handles), self._plugin_class()
        make = cast("Callable[..., ServicePlugin] | None", getattr(kind, "from_config", None))
        construct = cast("Callable[..., ServicePlugin]", kind)
        try:
            return make(name, options, self.folder) if make else construct(name=name, **options)
        except (TypeError, ValueError) as exc:
            hint, why = getattr(exc, "hint", None), f"{self.source}: {getattr(exc, 'message', exc)}"
            raise ConfigurationError(why, service=self.name, hint=hint) from exc

    def _plugin_class(self) -> type[ServicePlugin]:
        try:
            kind = discovery.load_plugin(self.plugin)
        except PluginError as exc:
            if any(entry.name == self.plugin for entry in discovery.installed()):
                raise
            what = f"{self.plugin!r} is not installed"
            raise _wrong(self.source, "plugin", what, exc.hint) from exc
        known = _option_names(kind)
        for key in self.options:
            if known is not None and key not in known:
                raise _wrong(self.source, key, "unknown key", nearest(key, [*known, *_OWN_KEYS]))
        return kind

    def _filled(self, handles: Mapping[str, ServiceHandle] | None) -> dict[str, object]:
        def fill(key: str, text: str) -> str:
            return _PLACEHOLDER.sub(lambda match: self._value(key, match, handles), text)

        return {key: _with_texts(key, value, fill) for key, value in self.options.items()}

    def _value(
        self, key: str, match: re.Match[str], handles: Mapping[str, ServiceHandle] | None
    ) -> str:
        if kept := match["kept_variable"] or match["kept_reference"]:
            return kept
        if variable := match["variable"]:
            default = cast("str | None", match["default"])
            if default and "{" in default:  # it would end at the first "}"
                raise _wrong(self.source, key, f"the default of {variable} has braces in it")
            if (value := os.environ.get(variable, default)) is not None:
                return value
            hint = f"set it, or write ${{{variable}:-default}}"
            raise _wrong(self.source, key, f"environment variable {variable} is not set", hint)
        if handles is None:
            return match[0]
        metadata = handles[match["service"]].metadata
        if match["key"] not in metadata:
            hint = f"{match['service']} has {', '.join(sorted(metadata))}"
            raise _wrong(self.source, key, f"{match[0]}: no such key", hint)
        return metadata[match["key"]]


def load_config(path: str | os.PathLike[str] | None = None) -> list[DeclaredService]:
    """Read the declared services; an empty list if none are declared. Imports no plugin.

    Args:
        path: The file, or the folder to search from, upwards; by default the current one.

    Raises:
        ConfigurationError: What is declared is wrong: names file, table and key.
    """
    start = Path(path or ".").absolute()
    if not start.exists():
        raise ConfigurationError(f"{start}: no such file or folder")
    places = [place / file for place in (start, *start.parents) for file in _FILES]
    files = filter(Path.is_file, [start] if start.is_file() else places)
    return next(filter(None, map(_read, files)), [])


_FILES = ("cleanroom.toml", "pyproject.toml")
_OWN_KEYS = ("plugin", "depends_on", "default")
_KINDS = {str: "a string", list: "an array", bool: "a boolean", dict: "a table"}
_PLACEHOLDER = re.compile(
    r"\$(?P<kept_variable>\$\{)|\{(?P<kept_reference>\{[\w-]+\.\w+\})\}"
    r"|\$\{(?P<variable>[A-Za-z_]\w*)(:-(?P<default>[^}]*))?\}"
    r"|\{(?P<service>[\w-]+)\.(?P<key>\w+)\}"
)


def _read(file: Path) -> list[DeclaredService]:
    import tomllib

    prefix = "tool.cleanroom." if file.name == "pyproject.toml" else ""
    try:
        text = file.read_text("utf-8")
        table = tomllib.loads(text) if "cleanroom" in text or not prefix else {}
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{file}: {exc}") from exc
    top = f"{file} [tool.cleanroom]" if prefix else str(file)
    if prefix:
        table = _table(f"{file} [tool]", _table(str(file), table, "tool"), "cleanroom")
    for key in table.keys() - {"services"}:
        raise _wrong(top, key, "unknown key", f"declare [{prefix}services.NAME]")
    tables = _table(top, table, "services")
    found: list[DeclaredService] = []
    for name in tables:
        options = _table(f"{file} [{prefix}services]", tables, name)
        source = f"{file} [{prefix}services.{name}]"
        found.append(_declared(source, file.parent, options, name, tables))
    _check_together(found)
    return found


def _declared(
    source: str, folder: Path, options: dict[str, object], name: str, known: Mapping[str, object]
) -> DeclaredService:
    _typed(source, "backend", options.get("backend", ""), str)
    plugin = str(_typed(source, "plugin", options.pop("plugin", ""), str))
    default = bool(_typed(source, "default", options.pop("default", False), bool))
    listed = cast("list[object]", _typed(source, "depends_on", options.pop("depends_on", []), list))
    needs = {str(_typed(source, "depends_on", item, str)): "depends_on" for item in listed}
    if not plugin:
        raise _wrong(source, "plugin", "missing", 'write plugin = "postgres", for instance')

    def note_references(key: str, text: str) -> str:
        for match in _PLACEHOLDER.finditer(text):
            if match["service"]:
                needs.setdefault(match["service"], key)
        return text

    for key, value in options.items():
        _with_texts(key, value, note_references)
    for other in needs.keys() - known.keys():
        what = f"no service {other!r} is declared"
        raise _wrong(source, needs[other], what, nearest(other, known))
    return DeclaredService(name, plugin, options, tuple(needs), default, source, folder)


def _check_together(services: list[DeclaredService]) -> None:
    from graphlib import CycleError, TopologicalSorter

    by_name = {service.name: service for service in services}
    try:
        TopologicalSorter({service.name: service.depends_on for service in services}).prepare()
    except CycleError as exc:
        circle: list[str] = exc.args[1][::-1]
        source = by_name[circle[0]].source
        raise _wrong(source, "depends_on", f"goes in a circle: {' -> '.join(circle)}") from None
    defaults: dict[str, str] = {}
    for service in services:
        if service.default and defaults.setdefault(service.plugin, service.name) != service.name:
            what = f"{defaults[service.plugin]!r} is the default for {service.plugin!r} already"
            raise _wrong(service.source, "default", what)


def _table(source: str, parent: Mapping[str, object], key: str) -> dict[str, object]:
    return cast("dict[str, object]", _typed(source, key, parent.get(key, {}), dict))


def _typed(source: str, key: str, value: object, kind: type) -> object:
    if not isinstance(value, kind):
        raise _wrong(source, key, f"is {value!r}, not {_KINDS[kind]}")
    return value


def _with_texts(key: str, value: object, change: Callable[[str, str], str]) -> object:
    """Return a copy of a value with every text in it, however deep, changed."""
    if isinstance(value, str):
        return change(key, value)
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return {name: _with_texts(f"{key}.{name}", item, change) for name, item in items}
    if isinstance(value, list):
        return [_with_texts(key, item, change) for item in cast("list[object]", value)]
    return value


def _option_names(kind: type[ServicePlugin]) -> Collection[str] | None:
    """Return the options that a plugin class takes; None if only the class itself can tell."""
    import inspect

    keys = cast("Collection[str] | None", getattr(kind, "CONFIG_KEYS", None))
    parameters = inspect.signature(kind).parameters.values()
    unsaid = hasattr(kind, "from_config") or any(p.kind is p.VAR_KEYWORD for p in parameters)
    if keys is None and unsaid:
        return None
    named = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    return named.union(keys or ()) - {"name"}


def _wrong(source: str, key: str, what: str, hint: str | None = None) -> ConfigurationError:
    return ConfigurationError(f"{source} {key}: {what}", hint=hint)
