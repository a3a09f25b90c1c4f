"""`cleanroom clean`: remove what runs have left whose processes were killed, and kept runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cleanroom_runtime._runs import KnownRun


@click.command(short_help="Remove what dead runs have left.")
@click.option("--kept", is_flag=True, help="Also end the runs that --cleanroom-keep has kept.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what there is.")
def clean(kept: bool, dry_run: bool) -> int:
    """Remove what dead runs left: processes, containers, folders.

    A run is dead when the process that watches over it was killed, or the machine went down. The
    next run that starts a service cleans up as well; this does it now, and says what there was.
    Runs that are alive are left alone. The exit code is 1 where something could not be removed.
    """
    from cleanroom._secrets import scrub
    from cleanroom_runtime._runs import known_runs

    runs = known_runs()
    dead = [run for run in runs if run.state == "dead"]
    preserved = [run for run in runs if run.state == "kept"]
    for run in dead:
        click.echo(f"Run {run.id} is dead. It left:")
        _list(run.left())
    for run in preserved:
        click.echo(f"Run {run.id} was kept, with:")
        _list([scrub(note) for note in run.notes])
    alive = [run.id for run in runs if run.state == "alive"]
    if alive:
        click.echo(f"Alive, and left alone: {', '.join(alive)}.")
    if not dead and not preserved:
        click.echo("There is nothing to clean up.")
    if dry_run:
        return 0
    if preserved and not kept:
        click.echo("Kept runs stay: cleanroom clean --kept ends them.")
    if kept:
        _end(preserved)
    return 0 if _sweep(dead) else 1


def _list(lines: list[str]) -> None:
    for line in lines:
        click.echo(f"  {line}")


def _end(runs: list[KnownRun]) -> None:
    from cleanroom_runtime._runs import end_run

    for run in runs:
        end_run(run.id)
        click.echo(f"Ended run {run.id}.")


def _sweep(dead: list[KnownRun]) -> bool:
    """Clean up after dead runs. Returns whether nothing is left."""
    from cleanroom_runtime._runs import clean_up_after_dead

    _sweep_engine()
    if not dead:
        return True
    clean_up_after_dead()
    left = [run for run in dead if run.directory.exists()]
    for run in left:
        reasons = run.failures() or ["another process is cleaning up, or it is not this user's"]
        click.echo(f"Run {run.id} could not be cleaned up after completely:", err=True)
        for reason in reasons:
            click.echo(f"  {reason}", err=True)
    if gone := len(dead) - len(left):
        from cleanroom_cli._output import plural

        click.echo(f"Removed what {plural(gone, 'run')} left.")
    return not left


def _sweep_engine() -> None:
    """Remove what runs have left that were in a container, and ended with it."""
    from cleanroom_runtime._engine import Engine, find_engine
    from cleanroom_runtime._stale import sweep

    engine = find_engine()
    if isinstance(engine, Engine):
        try:
            sweep(engine)
        except OSError as exc:
            click.echo(f"The engine at {engine.url} could not be asked: {exc}", err=True)
