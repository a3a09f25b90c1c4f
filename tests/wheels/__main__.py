"""Tries built distributions as their users get them: `python -m tests.wheels FOLDER`.

The folder is what `hatch build --all` made. Each distribution is installed into a fresh
environment with what it requires and nothing else. All that is wrong is told, not only the first.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from traceback import format_exception_only

from tests.wheels.environment import HERE, ROOT, Environment, succeed, wheels_in
from tests.wheels.rebuilt import rebuild
from tests.wheels.typing import check_types

WORKERS = 2
EXTRAS = {
    "cleanroom-core": "telemetry,testing",
    "cleanroom-runtime": "telemetry",
    "cleanroom-plugin-postgres": "embedded",
    "cleanroom-plugin-redis": "embedded",
}


def main(dist: Path) -> int:
    """Return how many checks fail, each of which says why."""
    with tempfile.TemporaryDirectory(prefix="wheels-") as temporary:
        work = Path(temporary)
        checks: dict[str, Callable[[], None]] = {
            "all together": lambda: together(dist, work),
            "types": lambda: types(dist, work),
            "twine check": lambda: twine(dist),
            "sdists rebuild to the same wheels": lambda: rebuild(dist, work / "rebuilt"),
            "core alone": lambda: alone(dist, work, "core"),
            "postgres alone": lambda: alone(dist, work, "plugin-postgres", "embedded"),
            "postgres without libpq": lambda: without_libpq(dist, work),
            "redis alone": lambda: alone(dist, work, "plugin-redis", "embedded"),
            "postgres-server alone": lambda: alone(dist, work, "postgres-server"),
            "valkey-server alone": lambda: alone(dist, work, "valkey-server"),
            "http alone": lambda: alone(dist, work, "plugin-http"),
            "cli alone": lambda: alone(dist, work, "cli"),
        }
        with ThreadPoolExecutor(WORKERS) as pool:
            return sum(pool.map(passes, checks, checks.values()))


def passes(name: str, check: Callable[[], None]) -> bool:
    """Say how a check went; return whether it failed."""
    began = time.monotonic()
    try:
        check()
    except (AssertionError, OSError, subprocess.SubprocessError) as exc:
        print(f"{name}: FAILED\n{''.join(format_exception_only(exc))}", flush=True)
        return True
    print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
    return False


def twine(dist: Path) -> None:
    """The metadata is what an index takes, and its README renders."""
    succeed(sys.executable, "-m", "twine", "check", "--strict", *sorted(dist.iterdir()))


def alone(dist: Path, work: Path, package: str, extra: str = "") -> None:
    """All modules can be imported, and the main job is done, with the declared requirements."""
    environment = Environment(work / package, dist)
    environment.install({f"cleanroom-{package}": extra})
    environment.script("imports.py", f"cleanroom-{package}")
    environment.script(f"{package.removeprefix('plugin-').replace('-', '_')}_alone.py")


def without_libpq(dist: Path, work: Path) -> None:
    """Without the extra, the driver has no libpq of its own, and the error says what brings it."""
    environment = Environment(work / "without", dist)
    environment.install({"cleanroom-plugin-postgres": ""})
    environment.script("postgres_without_libpq.py")


def together(dist: Path, work: Path) -> None:
    """All of them with all extras go together, and an example's tests pass with them."""
    environment = Environment(work / "together", dist)
    environment.install(everything(dist), "pytest", "pytest-xdist", by="pip")
    example = work / "example"
    shutil.copytree(ROOT / "examples" / "orders", example)
    environment.run("-m", "pytest", "-q", "-n", str(WORKERS), "-p", "no:cacheprovider", cwd=example)


def types(dist: Path, work: Path) -> None:
    """Type checkers see the types in the wheels."""
    environment = Environment(work / "types", dist)
    environment.install(everything(dist))
    check_types(environment, HERE / "typed", work / "typed")


def everything(dist: Path) -> dict[str, str]:
    """All distributions with all their extras."""
    return {name: EXTRAS.get(name, "") for name in wheels_in(dist)}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
