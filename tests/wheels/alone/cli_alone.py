"""The command: what it says, and the template that travels with it."""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

COMMAND = Path(sys.executable).with_name("cleanroom")


def cleanroom(*arguments: str) -> str:
    """Run the command, which succeeds, and return what it wrote."""
    done = subprocess.run(
        [COMMAND, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


assert "plugins" in cleanroom("--help")
assert "container" in cleanroom("plugins")
with tempfile.TemporaryDirectory() as folder:
    answers = ("--service", "teapot", "--image", "teapot:1", "--port", "4018")
    cleanroom("new", "--no-input", *answers, "--folder", folder)
    (project,) = Path(folder).iterdir()
    made = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert list(made["entry-points"]["cleanroom.plugins"]) == ["teapot"]
    assert list(project.glob("src/*/_plugin.py"))
