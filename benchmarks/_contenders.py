"""Who is measured: what to install, how its suite gets a service, how it is run."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

IMAGE = os.environ.get("CLEANROOM_TEST_POSTGRES_IMAGE", "cleanroom-test/postgres:15")
"""The PostgreSQL image that every contender with containers runs."""

REDIS_IMAGE = os.environ.get("CLEANROOM_TEST_REDIS_IMAGE", "cleanroom-test/redis:7")
"""The Redis image that every contender with containers runs."""


def _nothing_missing() -> str | None:
    return None


def _no_conftest(tables: int) -> str:
    return ""


@dataclass(frozen=True)
class Contender:
    """One way to give tests a service, or a floor to compare with."""

    name: str
    environment: str
    """The requirements file it is installed from, without `.txt`."""
    conftest: Callable[[int], str] = _no_conftest
    """The text of the suite's conftest, by the number of tables in the template (0: none).

    It defines a fixture `connection`, a psycopg connection to the test's own database; or for
    Redis a fixture `client`.
    """
    kind: str | None = None
    """What its tests do, where that is not what the work asks for (floors)."""
    settings: str = ""
    """More text for the suite's pyproject.toml."""
    variables: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    """What goes before the command, for instance to leave the rights of root."""
    arguments: tuple[str, ...] = ()
    """More arguments for pytest."""
    needs_server: bool = False
    """Whether it is given a server that runs already, in the variables BENCH_SERVER_URL and
    BENCH_SERVER_SOCKET, the folder of its unix socket."""
    slow_tests: bool = False
    """Whether its suites take so long that fewer tests, and fewer rounds, have to do."""
    missing: Callable[[], str | None] = _nothing_missing
    """Returns why it cannot be measured here; None if it can."""


@functools.cache
def missing_image(image: str = IMAGE) -> str | None:
    """Return why an image cannot be run here; None if it can."""
    for engine in ("docker", "podman"):
        if not shutil.which(engine):
            continue
        version = subprocess.run([engine, "version"], capture_output=True, check=False)
        if version.returncode != 0:
            continue
        found = subprocess.run(
            [engine, "image", "inspect", image], capture_output=True, check=False
        )
        return None if found.returncode == 0 else f"{engine} has no image {image}"
    return "no container engine answers"


def as_ordinary_user() -> tuple[str, ...]:
    """Return what to put before a command that refuses to run as root: nothing for others."""
    if os.geteuid() != 0:
        return ()
    return ("unshare", "--user", "--map-user=1000", "--map-group=1000")
