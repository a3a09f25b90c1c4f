"""Whether the source distributions hold all that the wheels are built from."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from tests.wheels.environment import succeed, wheels_in


def rebuild(dist: Path, folder: Path) -> None:
    """Build each sdist, and compare what is in the wheel with what was in the first."""
    sdists = sorted(dist.glob("*.tar.gz"))
    assert len(sdists) == len(wheels_in(dist)), sdists
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
    succeed(*pip, "--wheel-dir", folder, *sdists)
    for name, wheel in wheels_in(dist).items():
        before, after = contents(wheel), contents(folder / wheel.name)
        differing = {
            path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
        }
        assert not differing, f"{name}: its sdist builds other files: {sorted(differing)}"
        assert any(path.endswith("/py.typed") for path in before), f"{name}: no py.typed"
        for_any = wheel.name.endswith("-py3-none-any.whl")
        assert for_any != name.endswith("-server"), f"{wheel.name} is for the wrong platforms"
        assert not any("tests" in Path(path).parts[:2] for path in before), f"{name}: has tests"


def contents(wheel: Path) -> dict[str, bytes]:
    """What is in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {path: archive.read(path) for path in archive.namelist()}
