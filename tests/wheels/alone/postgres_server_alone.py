"""The programs run, and nothing came with them."""

import subprocess
from importlib.metadata import distributions

from cleanroom_postgres_server import PROGRAMS, __version__

for name in ("postgres", "initdb", "psql"):
    command = [PROGRAMS / name, "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.strip().endswith(f"(PostgreSQL) {__version__.partition('.post')[0]}"), said
assert [each.name for each in distributions()] == ["cleanroom-postgres-server"]
