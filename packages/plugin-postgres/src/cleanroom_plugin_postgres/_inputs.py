"""What a migration is, and whether it would make the same again."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path, PurePath
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
_PLAIN = (str, bytes, int, float, bool, type(None), PurePath)
_RESOLUTION = 0.01
"""Seconds to which the system knows when a process began."""


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

    def check(self, inputs: str = "inputs") -> None:
        """Find out what is wrong before there is a database.

        Args:
            inputs: What the further files were given as, for an error.

        Raises:
            ValidationError: A glob matches nothing, or it is neither glob nor callable.
        """
        if self.is_by_files:
            files("migrate", self.migrate, self.folder)
        if self.inputs:
            files(inputs, self.inputs, self.folder)

    @functools.cached_property
    def is_lasting(self) -> bool:
        """Whether the digest is the same in other runs, if the result is.

        Of a function that is so where its inputs were said, the file it is in is known, and it is
        bound to nothing but plain values.
        """
        if self.is_by_files:
            return True
        if not self.inputs or (self.name is None and not _is_plain_function(self.migrate)):
            return False
        return self._code is not None

    @property
    def is_as_digested(self) -> bool:
        """Whether what would run now is what the digest is of.

        A function and all that it uses may have been loaded since this process began, and be older
        than the files that are there now.
        """
        if self.is_by_files:
            return True
        return not any(_was_changed_since(_STARTED, file) for file in self._listed())

    def is_of(self, function: object) -> bool:
        """Whether this function is in the file that the digest is of."""
        found = _file_of_function(function) if callable(function) else None
        return found is not None and self._code is not None and found.samefile(self._code)

    def look_again(self) -> None:
        """Let the next digest be of the files as they are then."""
        self.__dict__.pop("digest", None)

    @property
    def is_unchanged(self) -> bool:
        """Whether a digest of the files as they are now would be the same."""
        return replace(self).digest == self.digest

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
        if self._code is not None:
            digest.update(b"\0" + os.fsencode(self._code))  # it may look for files beside it
        for file in self._listed():
            digest.update(b"\0" + os.fsencode(os.path.relpath(file, self.folder)) + b"\0")
            try:
                digest.update(_digest_of_file(file))
            except OSError as exc:
                raise ValidationError(f"{file} cannot be read: {exc.strerror}") from exc
        return digest.hexdigest()[:12]

    def _listed(self) -> list[Path]:
        """The files that the result depends on."""
        listed = files("inputs", self.inputs, self.folder) if self.inputs else []
        listed = [file for file in listed if "__pycache__" not in file.parts]
        if self.is_by_files:
            listed += files("migrate", self.migrate, self.folder)
        if self._code is not None:
            listed.append(self._code)
        return listed

    @functools.cached_property
    def _code(self) -> Path | None:
        """The file a function is in. What that imports is among the inputs, if it matters."""
        if self.is_by_files or not self.inputs:
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
            raise ValidationError(
                f"{argument}: {os.fspath(pattern)!r} matches no file in {folder}",
                hint="globs are relative to that folder; '**/*.sql' looks in all that are in it",
            )
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
    function = cast("Callable[..., object]", migrate)
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # it is an object, or not written in Python
        return None
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


def _digest_of_file(file: Path) -> bytes:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()


def _was_changed_since(moment: float, file: Path) -> bool:
    try:
        status = file.stat()
    except OSError:
        return True
    return max(status.st_mtime, status.st_ctime) > moment


def _process_start() -> float:
    """When this process began, or the earliest moment that is known; in seconds since the epoch."""
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            after_name = file.read().rpartition(")")[2].split()
        ticks = int(after_name[19])  # field 22 in proc_pid_stat(5): since the system was started
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, IndexError, ValueError):
        return time.time()
    return time.time() - age + _RESOLUTION


_STARTED = _process_start()
