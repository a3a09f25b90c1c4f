"""A fresh virtual environment, with distributions that were made for a test."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import uv


class Site:
    """A fresh virtual environment that has what the tests' own environment has, and more."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "venv", symlinks=True)
        self.python = folder / "venv" / "bin" / "python"
        paths = {"base": str(folder / "venv")}
        self.packages = Path(sysconfig.get_path("purelib", vars=paths))
        # Unlike a plain path, a folder added as a site has its editable installations as well.
        own = sysconfig.get_path("purelib")
        (self.packages / "own.pth").write_text(f"import site; site.addsitedir({own!r})\n")

    def wheel(
        self,
        name: str,
        version: str = "1.0",
        *,
        plugins: Mapping[str, str] | None = None,
        hooks: Mapping[str, str] | None = None,
        modules: Mapping[str, str] | None = None,
    ) -> Path:
        """Make the wheel of a distribution."""
        stem = f"{name.replace('-', '_')}-{version}"
        groups = {"cleanroom.plugins": plugins, "cleanroom.hooks": hooks, "console_scripts": None}
        points = [
            line
            for group, named in groups.items()
            for line in (
                f"[{group}]",
                *(f"{key} = {value}" for key, value in (named or {}).items()),
            )
        ]
        files = {
            **{f"{module}.py": dedent(source) for module, source in (modules or {}).items()},
            f"{stem}.dist-info/METADATA": (
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            ),
            f"{stem}.dist-info/WHEEL": (
                "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            ),
            f"{stem}.dist-info/entry_points.txt": "\n".join(points if plugins or hooks else []),
        }
        record = f"{stem}.dist-info/RECORD"
        files[record] = "".join(f"{path},,\n" for path in (*files, record))
        wheel = self.folder / f"{stem}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
        return wheel

    def pip(self, command: str, *arguments: str | Path) -> None:
        """Install or uninstall."""
        subprocess.run(
            [uv.find_uv_bin(), "pip", command, "-q", "--no-config", "--no-cache", "--offline",
             "--python", self.python, *arguments],
            check=True,
        )  # fmt: skip

    def install(self, *wheels: Path) -> None:
        """Install wheels alone."""
        self.pip("install", "--no-index", "--no-deps", *wheels)

    def run(self, cwd: Path, *arguments: str, **variables: str) -> tuple[int, str]:
        """Run Python there, with warnings as errors; return its exit code and what it wrote."""
        own = {key: value for key, value in os.environ.items() if not key.startswith("CLEANROOM_")}
        done = subprocess.run(
            [self.python, "-W", "error", *arguments],
            cwd=cwd,
            env={**own, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout

    def answer(self, cwd: Path, code: str, **variables: str) -> Any:
        """Run code there and return what it assigned to `answer`."""
        code = f"{dedent(code)}\nimport json\nprint('\\n' + json.dumps(answer))"
        status, said = self.run(cwd, "-c", code, **variables)
        assert status == 0, said
        return json.loads(said.splitlines()[-1])
