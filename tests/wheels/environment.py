"""Fresh environments, and the wheels that pip installs there."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import uv

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TIMEOUT = 300
Command: TypeAlias = tuple[str | Path, ...]


class Environment:
    """A virtual environment with nothing in it at first, not even an installer."""

    def __init__(self, folder: Path, dist: Path) -> None:
        self.python = folder / "bin" / "python"
        self._folder = folder
        self._wheels = wheels_in(dist)
        venv.create(folder, symlinks=True)

    def install(self, names: Mapping[str, str], *others: str, by: str = "uv") -> None:
        """Install distributions, what they require, and others.

        Args:
            names: Ours, with the extras of each.
            others: Such as are not ours.
            by: `uv`, which is fast, or `pip`.
        """
        constraints = self._folder / "constraints.txt"
        wheels = self._wheels.items()
        constraints.write_text("".join(f"{name} @ {wheel.as_uri()}\n" for name, wheel in wheels))
        ours = [f"{name}[{names[name]}] @ {self._wheels[name].as_uri()}" for name in names]
        if by == "pip":
            pip: Command = (sys.executable, "-m", "pip", "--python", self.python)
            succeed(*pip, "install", "-q", "--no-compile", "-c", constraints, *ours, *others)
            succeed(*pip, "check")
        else:
            pip, python = (uv.find_uv_bin(), "pip"), ("--python", self.python)
            succeed(*pip, "install", "-q", *python, "-c", constraints, *ours, *others)
            succeed(*pip, "check", "-q", *python)

    def script(self, name: str, *arguments: str) -> str:
        """Run one of our scripts there."""
        return self.run("-I", HERE / "alone" / name, *arguments)

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        """Run its Python, with warnings as errors."""
        return succeed(self.python, "-W", "error", *arguments, cwd=cwd or self._folder)


def wheels_in(dist: Path) -> dict[str, Path]:
    """The wheels in a folder by the names of their distributions."""
    found = {path.name.partition("-")[0].replace("_", "-"): path for path in dist.glob("*.whl")}
    packages = len(list(ROOT.glob("packages/*/pyproject.toml")))
    assert len(found) == packages, f"{len(found)} wheels of {packages} packages in {dist}"
    return {name: path.resolve() for name, path in sorted(found.items())}


def succeed(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command and return what it wrote; what it wrote is the error where it fails."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("CLEANROOM_")}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**own, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout
