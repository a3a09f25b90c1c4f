"""Signals: those that end `cleanroom up`, and those that it passes on to the command it runs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType

import click

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NOT_FOUND, _NOT_EXECUTABLE, _BY_SIGNAL = 127, 126, 128
"""Exit codes as shells have them."""


class Ended(KeyboardInterrupt):
    """A signal asks this process to end."""

    def __init__(self, number: int) -> None:
        self.exit_code = _BY_SIGNAL + number
        super().__init__(signal.Signals(number).name)


@contextlib.contextmanager
def ending_by_signal() -> Iterator[None]:
    """Raise `Ended` at a signal that asks this process to end, so that it cleans up."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise Ended(number)

    with _handled(end):
        yield


def run(command: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run a command until it ends, and return its exit code as a shell would.

    Ctrl-C is for the command to answer. So are other signals, which are passed on to it.

    Args:
        command: The program and its arguments.
        variables: Added to its environment.
    """
    started: list[subprocess.Popen[bytes]] = []
    received: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and _in_foreground():
            return  # the terminal has sent it to the command as well
        if started:
            started[0].send_signal(number)
        else:
            received.append(number)

    with _handled(pass_on):
        try:
            started.append(subprocess.Popen(command, env={**os.environ, **variables}))
        except OSError as exc:
            click.echo(f"Error: {command[0]}: {exc.strerror or exc}", err=True)
            return _NOT_FOUND if isinstance(exc, FileNotFoundError) else _NOT_EXECUTABLE
        for number in received:
            started[0].send_signal(number)
        code = started[0].wait()
    return _BY_SIGNAL - code if code < 0 else code


def _in_foreground() -> bool:
    """Whether this process's group is the one that a terminal's Ctrl-C goes to."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    heard = [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
