"""`python -m cleanroom_runtime`: look at and end runs that were kept."""

from __future__ import annotations

import argparse
import sys

from cleanroom_runtime._folders import run_roots
from cleanroom_runtime._run import Run, RunAddress


def main() -> int:
    """Run the command. Returns its exit code: 0, or 1 where there was no such run."""
    parser = argparse.ArgumentParser(prog="python -m cleanroom_runtime", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("runs", help="list the runs that are alive")
    stop = commands.add_parser("stop", help="end a run and all its services")
    stop.add_argument("run", help="the run's id")
    arguments = parser.parse_args()
    if arguments.command == "stop":
        return _stop(arguments.run)
    for run in _runs():
        if run.alive():
            sys.stdout.write(f"{run.id}\n")
        run.disconnect()
    return 0


def _runs() -> list[Run]:
    """All runs of this user that have a directory, alive or not."""
    directories = [entry for root in run_roots() if root.is_dir() for entry in root.iterdir()]
    return [Run(RunAddress(each.name, str(each.parent), 0)) for each in sorted(directories)]


def _stop(run_id: str) -> int:
    for run in _runs():
        if run.id == run_id and run.alive():
            run.shut_down(kept_too=True)
            return 0
    sys.stderr.write(f"no run {run_id!r} is alive\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
