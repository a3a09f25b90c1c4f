"""The program in the package, and what the package does not bring."""

import subprocess
from importlib.metadata import distribution

from cleanroom_valkey_server import PROGRAM, __version__

SERVER = __version__.partition(".post")[0]


def test_the_program_runs_and_is_of_the_packages_version() -> None:
    said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert f"server v={SERVER} " in said.stdout


def test_the_package_brings_nothing_else() -> None:
    """Whoever installs it has no further distribution, and pytest nothing to load."""
    package = distribution("cleanroom-valkey-server")
    assert not package.requires
    assert not package.entry_points
