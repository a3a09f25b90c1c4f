"""One virtual environment per contender: what its users install, and nothing of the others'.

In a shared environment pytest would load every contender's plugin into every run.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks._machine import ROOT
from benchmarks._process import BenchmarkError

HERE = Path(__file__).resolve().parent


@functools.cache
def python_of(name: str) -> Path:
    """Return the interpreter of the environment for `requirements/NAME.txt`, made if need be.

    Raises:
        BenchmarkError: if its packages cannot be installed.
    """
    requirements = HERE / "requirements" / f"{name}.txt"
    folder = HERE / ".environments" / f"{name}-{_digest(requirements)}"
    python = folder / "bin" / "python"
    done = folder / "installed"
    if not done.exists():
        print(f"installing {requirements.relative_to(ROOT)} ...", file=sys.stderr, flush=True)
        for old in folder.parent.glob(f"{name}-????????????"):
            shutil.rmtree(old)
        installer = _installer(python)
        venv.create(folder, symlinks=True, with_pip=installer[0] == str(python))
        _install([*installer, "-r", str(requirements)])
        done.touch()
    return python


def environment_on_top(folder: Path, base: Path, project: Path) -> Path:
    """Make an environment with a project, on top of what the environment of `base` has.

    Returns:
        Its interpreter.

    Raises:
        BenchmarkError: if the project cannot be installed.
    """
    python = folder / "bin" / "python"
    installer = _installer(python)
    venv.create(folder, symlinks=True, with_pip=installer[0] == str(python))
    [below] = base.parent.parent.glob("lib/python3*/site-packages")
    [own] = folder.glob("lib/python3*/site-packages")
    # As a site of its own, so that what is installed editable there is found as well.
    (own / "below.pth").write_text(f"import site; site.addsitedir({str(below)!r})\n")
    _install([*installer, "--no-deps", "-e", str(project)])
    return python


def _digest(requirements: Path) -> str:
    """Return what the environment depends on: interpreter, requirements, our packages' metadata.

    Our packages are installed editable, so their code needs no new environment.
    """
    content = requirements.read_bytes()
    digest = hashlib.sha256(sys.version.encode() + content)
    if b"./packages/" in content:
        for file in sorted(ROOT.glob("packages/*/pyproject.toml")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _installer(python: Path) -> list[str]:
    """Return the start of the command that installs into the environment of `python`.

    An environment made by uv has no pip, and Debian's Python none to put into a new one.
    """
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
    return [str(python), "-m", "pip", "install", "--quiet"]


def _install(command: list[str]) -> None:
    # Paths in requirement files are read from the root, where this runs.
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)} failed:\n{done.stderr.strip()[-2000:]}")
