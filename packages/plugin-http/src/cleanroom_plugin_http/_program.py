"""Finding the program that a command begins with."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from cleanroom import ConfigurationError


def find_program(name: str, path: str | None, cwd: Path | None, service: str) -> Path:
    """Return the full path of a program.

    Args:
        name: As the command has it.
        path: What the command's environment says of `PATH`, which is then all that counts.
        cwd: The command's working directory, to which a name with a folder is relative.
        service: The service's name, for the error.

    Raises:
        ConfigurationError: There is no such program.
    """
    if os.sep in name:
        found = shutil.which(Path(cwd or Path.cwd(), name))
    elif path is not None:
        found = shutil.which(name, path=path)
    else:
        # What runs the tests has its tools beside it, whether or not their folder is on PATH.
        found = shutil.which(name, path=os.path.dirname(sys.executable)) or shutil.which(name)
    if found is None:
        raise ConfigurationError(
            f"command begins with {name!r}, which is no program here",
            service=service,
            hint="give its full path, or sys.executable for Python",
        )
    return Path(found).absolute()
