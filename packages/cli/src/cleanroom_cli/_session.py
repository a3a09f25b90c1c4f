"""One `cleanroom up`, from the first service to the last."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import click

from cleanroom import HealthStatus, discovery
from cleanroom._secrets import HIDDEN, scrub
from cleanroom_cli._environment import EnvironmentFile, check_variables, variables
from cleanroom_cli._output import is_terminal, show_table
from cleanroom_cli._progress import Progress, kind_of
from cleanroom_cli._services import environment, wanted
from cleanroom_cli._signals import Ended, ending_by_signal, run

if TYPE_CHECKING:
    from cleanroom import CleanroomEnvironment, ServiceHandle

_WATCH = 2.0
"""Seconds between two questions to the services whether they are well."""
_LOG_LINES = 10


class Wishes(NamedTuple):
    """What the user wants to see of the services, and where."""

    env_file: Path | None
    as_json: bool
    show_secrets: bool
    quiet: bool


def run_services(
    names: Sequence[str], config: str | None, command: Sequence[str] | None, wishes: Wishes
) -> int:
    """Start services, run a command or wait for a signal, and stop them.

    Returns:
        The exit code.

    Raises:
        CleanroomError: What was asked for is wrong, or a service failed.
    """
    services = wanted(names, config)
    check_variables(services)
    file = EnvironmentFile(wishes.env_file) if wishes.env_file else None
    for problem in discovery.problems():
        click.echo(f"Warning: {problem}", err=True)
    progress = Progress(services, quiet=wishes.quiet)
    started = False
    try:
        with (
            ending_by_signal(),
            _run_of_its_own(),
            environment(services, progress.begun) as env,
        ):
            with progress.shown():
                running = env.start_all()
            started = True
            handles = {name: running[name] for name in services}
            values = variables(handles)
            with file.holding(values) if file else contextlib.nullcontext():
                _show(handles, wishes, err=command is not None)
                if command is not None:
                    return run(command, values)
                _watch(env, wishes)
    except Ended as exc:
        return _ended(exc, well=started and command is None)


def _ended(signal: Ended, *, well: bool) -> int:
    """Return the exit code for the end by a signal; what could not be stopped is a failure."""
    notes: list[str] = getattr(signal, "__notes__", [])
    if not well:
        return signal.exit_code
    for note in notes:
        click.echo(f"Error: {note}", err=True)
    return 1 if notes else 0


@contextlib.contextmanager
def _run_of_its_own() -> Iterator[None]:
    """End with the context, at once, what the services were started in."""
    from cleanroom_runtime._run import RunAddress, join_run, joined_run, leave_run

    before = joined_run()
    own = join_run(RunAddress.new())
    try:
        yield
    finally:
        own.shut_down()
        leave_run(before)


def _show(handles: Mapping[str, ServiceHandle], wishes: Wishes, *, err: bool) -> None:
    """Say where the services are."""
    if wishes.as_json:
        services = {name: dict(handle.metadata) for name, handle in handles.items()}
        click.echo(json.dumps({"services": services, "environment": variables(handles)}))
    elif not wishes.quiet:
        rows = [
            (name, kind_of(handle), _address(handle, wishes)) for name, handle in handles.items()
        ]
        if is_terminal(err=err) and any(len("    ".join(row)) > _width() for row in rows):
            for name, kind, url in rows:  # a URL that is cut in two cannot be copied
                click.echo(f"{name} ({kind})\n  {url}", err=err)
        else:
            show_table(("service", "runs as", "url"), rows, err=err)
        if any(HIDDEN in row[-1] for row in rows):
            click.echo("Passwords are hidden: --show-secrets shows them.", err=True)


def _width() -> int:
    return shutil.get_terminal_size().columns


def _address(handle: ServiceHandle, wishes: Wishes) -> str:
    facts = handle.metadata
    url = facts.get("url") or ":".join(filter(None, [facts.get("host"), facts.get("port")]))
    return url if wishes.show_secrets else scrub(url)


def _watch(env: CleanroomEnvironment, wishes: Wishes) -> NoReturn:
    """Wait for the signal that ends this process, and say when a service stops working."""
    if not wishes.quiet:
        click.echo("Ctrl-C stops them.", err=True)
    known: dict[str, HealthStatus] = {}
    while True:
        time.sleep(_WATCH)
        for name, status in env.health().items():
            if status is not known.get(name, HealthStatus.HEALTHY):
                click.echo(f"{name}: {status.value}", err=True)
                if status is HealthStatus.UNHEALTHY:
                    _show_log(env, name)
            known[name] = status


def _show_log(env: CleanroomEnvironment, name: str) -> None:
    from cleanroom_runtime._explain import log_tail

    for line in log_tail(env.plugin(name), env[name], _LOG_LINES).splitlines():
        click.echo(f"  {line}", err=True)
