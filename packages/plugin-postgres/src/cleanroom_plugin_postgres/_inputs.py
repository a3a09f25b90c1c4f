"""What a migration is, and whether it would make the same again."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cleanroom import ValidationError

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._database import Template

Patterns = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A glob, or globs."""

Migrate = Callable[["Template"], object] | Patterns
"""How a database gets its content: a callable, its name (`"package.module:function"`), or globs of
SQL files."""

_NAME = re.compile(r"(?P<module>\w+(\.\w+)*):(?P<function>\w+(\.\w+)*)")
_PLAIN = (str, bytes, int, float, bool, type(None), os.PathLike)


@dataclass(frozen=True)
class Migration:
    """What migrates a database, and what its result depends on.

    Attributes:
        migrate: By what.
        folder: What globs are relative to.
        inputs: Globs of further files the result depends on: all of them for a function.
        place: Where that was said, to tell callables apart.
    """

    migrate: Migrate
    folder: Path
    inputs: Patterns = ()
    place: str = ""

    @property
    def name(self) -> tuple[str, str] | None:
        """Module and function, where that is how it was given."""
        named = _NAME.fullmatch(self.migrate) if isinstance(self.migrate, str) else None
        return (named["module"], named["function"]) if named else None

    @property
    def is_by_files(self) -> bool:
        """Whether it is globs of SQL files."""
        return not callable(self.migrate) and self.name is None

    def check(self) -> None:
        """Find out what is wrong before there is a database.

        Raises:
            ValidationError: A glob matches nothing, or it is neither glob nor callable.
        """
        if self.is_by_files:
            files("migrate", self.migrate, self.folder)
        if self.inputs:
            files("inputs", self.inputs, self.folder)

    @functools.cached_property
    def is_lasting(self) -> bool:
        """Whether another run can tell by the digest that the result would be the same.

        Of a function that is so where its inputs were said, and it is bound to nothing but plain
        values.
        """
        if self.is_by_files:
            return True
        return bool(self.inputs) and (self.name is not None or _is_plain_function(self.migrate))

    @functools.cached_property
    def digest(self) -> str:
        """A short digest of what migrates and of the files it depends on, in every run the same.

        If the migration is not lasting, it is only the same in every process of one run.

        Raises:
            ValidationError: A glob matches nothing, or a file cannot be read.
        """
        digest = hashlib.sha256(_identity(self.migrate).encode())
        if not self.is_lasting:
            digest.update(f"\0{self.place}".encode())
        listed = files("inputs", self.inputs, self.folder) if self.inputs else []
        if self.is_by_files:
            listed += files("migrate", self.migrate, self.folder)
        code = self._code()
        if code is not None:
            digest.update(f"\0{code}".encode())  # which may look for further files beside it
            listed.append(code)
        for file in listed:
            try:
                content = file.read_bytes()
            except OSError as exc:
                raise ValidationError(f"{file} cannot be read: {exc.strerror}") from exc
            name = os.path.relpath(file, self.folder)
            digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()[:12]

    def _code(self) -> Path | None:
        """The file a function is in. What that imports is among the inputs, if it matters."""
        if not self.is_lasting or self.is_by_files:
            return None
        return _file_of_module(self.name[0]) if self.name else _file_of_function(self.migrate)


def files(argument: str, patterns: object, folder: Path) -> list[Path]:
    """Return the files that globs match, each glob's sorted by path.

    Args:
        argument: What they were given as, for an error.
        patterns: The globs.
        folder: What they are relative to.

    Raises:
        ValidationError: A glob matches nothing.
    """
    listed = patterns if isinstance(patterns, Sequence) and not isinstance(patterns, str) else None
    found: list[Path] = []
    for pattern in [patterns] if listed is None else listed:
        if not isinstance(pattern, str | os.PathLike):
            hint = "give a callable, or globs" if argument == "migrate" else "give globs"
            raise ValidationError(f"{argument} is {patterns!r}", hint=hint)
        path = folder / pattern
        base = Path(path.anchor)
        matches = [each for each in base.glob(str(path.relative_to(base))) if each.is_file()]
        if not matches:
            raise ValidationError(f"{os.fspath(pattern)!r} matches no file in {folder}")
        found += sorted(matches)
    return found


def _identity(migrate: object) -> str:
    """What tells callables apart, the same in every worker."""
    if isinstance(migrate, functools.partial):
        return f"{_identity(migrate.func)} {migrate.args!r} {migrate.keywords!r}"
    if callable(migrate):
        kind = type(migrate).__qualname__
        module = getattr(migrate, "__module__", "")
        line = getattr(getattr(migrate, "__code__", None), "co_firstlineno", 0)
        return f"{module}.{getattr(migrate, '__qualname__', kind)} {line} {_bound(migrate)!r}"
    return repr(migrate)


def _bound(function: object) -> list[object]:
    """The values a function carries along."""
    cells = getattr(function, "__closure__", None) or ()
    defaults = [
        getattr(function, "__defaults__", None),
        getattr(function, "__kwdefaults__", None),
    ]
    return [*defaults, [cell.cell_contents for cell in cells]]


def _is_plain_function(migrate: object) -> bool:
    if isinstance(migrate, functools.partial):
        bound = [*migrate.args, *migrate.keywords.values()]
        return _is_plain_function(migrate.func) and all(map(_is_plain, bound))
    return inspect.isfunction(migrate) and all(map(_is_plain, _bound(migrate)))


def _is_plain(value: object) -> bool:
    """Whether a value is written the same in every run."""
    if isinstance(value, Mapping):
        return all(_is_plain(each) for pair in cast("Mapping[object, object]", value).items()
                   for each in pair)  # fmt: skip
    if isinstance(value, list | tuple):
        return all(map(_is_plain, cast("Sequence[object]", value)))
    return isinstance(value, _PLAIN)


def _file_of_function(migrate: object) -> Path | None:
    while isinstance(migrate, functools.partial):
        migrate = migrate.func
    file = inspect.getsourcefile(cast("Callable[..., object]", migrate))
    return Path(file) if file and os.path.isfile(file) else None


def _file_of_module(module: str) -> Path | None:
    """Find a module's file without importing the packages it is in."""
    path: Sequence[str] | None = None
    found = None
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        found = PathFinder.find_spec(".".join(parts[:length]), path)
        if found is None:
            return None
        path = found.submodule_search_locations
    origin = found.origin if found is not None else None
    return Path(origin) if origin and os.path.isfile(origin) else None
