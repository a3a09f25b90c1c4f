"""`python -m cleanroom_runtime`: look at and end runs that were kept."""

from __future__ import annotations

import argparse
import sys

from cleanroom_runtime._runs import end_run, known_runs


def main() -> int:
    """Run the command. Returns its exit code: 0, or 1 where there was no such run."""
    parser = argparse.ArgumentParser(prog="python -m cleanroom_runtime", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("runs", help="list the runs that are alive")
    stop = commands.add_parser("stop", help="end a run and all its services")
    stop.add_argument("run", help="the run's id")
    arguments = parser.parse_args()
    if arguments.command == "runs":
        sys.stdout.writelines(f"{run.id}\n" for run in known_runs() if run.state != "dead")
    elif not end_run(arguments.run):
        sys.stderr.write(f"no run {arguments.run!r} is alive\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
