"""Whether type checkers see the types of installed wheels, as their users' checkers do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.wheels.environment import TIMEOUT, Environment

CONFIG = {"typeCheckingMode": "strict", "reportUnusedCoroutine": "error"}


def check_types(environment: Environment, sources: Path, folder: Path) -> None:
    """Each checker accepts `right.py`, and finds in `wrong.py` the lines that say so, and no more.

    The checkers run outside of the workspace, which would otherwise be found in place of wheels.
    """
    shutil.copytree(sources, folder)
    (folder / "pyrightconfig.json").write_text(json.dumps(CONFIG))
    wanted = {
        ("wrong.py", number)
        for number, line in enumerate((folder / "wrong.py").read_text().splitlines(), 1)
        if "# wrong" in line
    }
    assert wanted
    for checker in (mypy, pyright):
        found, said = checker(environment, folder)
        missed, extra = sorted(wanted - found), sorted(found - wanted)
        assert found == wanted, f"{checker.__name__} misses {missed}, objects to {extra}\n{said}"


def mypy(environment: Environment, folder: Path) -> tuple[set[tuple[str, int]], str]:
    """Return what mypy objects to, and what it said."""
    python = f"--python-executable={environment.python}"
    options = ("--strict", "--no-incremental", "--config-file=", python)
    said = output("mypy", *options, "right.py", "wrong.py", cwd=folder)
    found = re.findall(r"^(.+\.py):(\d+): error", said, re.MULTILINE)
    return {(name, int(number)) for name, number in found}, said


def pyright(environment: Environment, folder: Path) -> tuple[set[tuple[str, int]], str]:
    """Return what pyright objects to, and what it said."""
    said = output("pyright", "--outputjson", "--pythonpath", str(environment.python), cwd=folder)
    found = json.loads(said[said.index("{") :])["generalDiagnostics"]
    lines = {(Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in found}
    return lines, "\n".join(f"{each['file']}: {each['message']}" for each in found)


def output(module: str, *arguments: str, cwd: Path) -> str:
    """What a checker says, whatever its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return done.stdout
