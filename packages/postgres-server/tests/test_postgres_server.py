"""The programs in the package, and what the package does not bring."""

import subprocess
from importlib.metadata import distribution

import pytest

from cleanroom_postgres_server import PROGRAMS, __version__

SERVER = __version__.partition(".post")[0]


@pytest.mark.parametrize("program", ["postgres", "initdb", "psql", "pg_dump"])
def test_a_program_runs_and_is_of_the_packages_version(program: str) -> None:
    said = subprocess.run(
        [PROGRAMS / program, "--version"], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip().endswith(f"(PostgreSQL) {SERVER}")


def test_the_package_brings_nothing_else() -> None:
    """Whoever installs it has no further distribution, and pytest nothing to load."""
    package = distribution("cleanroom-postgres-server")
    assert not package.requires
    assert not package.entry_points


def test_the_licenses_of_the_programs_are_there() -> None:
    notices = PROGRAMS.parents[2] / "licenses" / "THIRD_PARTY_NOTICES.md"
    assert "PostgreSQL" in notices.read_text(encoding="utf-8")
