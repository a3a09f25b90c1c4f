"""The server of Valkey, as a program that pip installs.

cleanroom-plugin-redis starts it. There is nothing else in this package: no client, and nothing that
pytest would load.
"""

from pathlib import Path

__version__ = "9.1.2"
__all__ = ["PROGRAM", "__version__"]

PROGRAM = Path(__file__).parent / "bin" / "valkey-server"
"""The server's program."""
