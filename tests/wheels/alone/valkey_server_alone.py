"""The server runs, and nothing came with it."""

import subprocess
from importlib.metadata import distributions

from cleanroom_valkey_server import PROGRAM, __version__

said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
assert f"v={__version__.partition('.post')[0]} " in said, said
assert [each.name for each in distributions()] == ["cleanroom-valkey-server"]
