"""How starting services goes on: drawn anew on a terminal, line by line in a log."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from cleanroom import ServiceHandle, discovery
from cleanroom.hooks import hookimpl
from cleanroom_cli._output import is_terminal

if TYPE_CHECKING:
    from rich.table import Table

_PULLS = logging.getLogger("cleanroom.pull")
_WAITING = "waiting for what it depends on"


class Progress(logging.Handler):
    """Shows on the standard error what becomes of services.

    Args:
        services: Their names.
        quiet: Whether nothing is shown.
    """

    def __init__(self, services: Iterable[str], *, quiet: bool) -> None:
        super().__init__(logging.INFO)
        self._quiet = quiet
        self._states = dict.fromkeys(services, _WAITING)
        self._since: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._pull = ""
        self._changing = threading.Lock()
        self._drawn = is_terminal(err=True) and not quiet

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show what happens until the context ends."""
        hooks = discovery.hook_manager()
        hooks.register(self)
        level = _PULLS.level
        _PULLS.setLevel(logging.INFO)
        _PULLS.addHandler(self)
        try:
            with self._live() if self._drawn else contextlib.nullcontext():
                yield
        finally:
            _PULLS.removeHandler(self)
            _PULLS.setLevel(level)
            hooks.unregister(self)

    def begun(self, name: str) -> None:
        """Note that a service is being started."""
        self._since[name] = time.perf_counter()
        self._change(name, "starting")

    @hookimpl
    def cleanroom_service_started(self, handle: ServiceHandle) -> None:
        """Note that a service answers."""
        name = handle.service_name
        seconds = self.seconds(name)
        if seconds is not None:
            self._seconds[name] = seconds
            self._change(name, f"ready in {seconds:.2f} s ({kind_of(handle)})")

    @hookimpl
    def cleanroom_service_failed(self, service_name: str) -> None:
        """Note that a service could not be started."""
        self._change(service_name, "failed")

    def emit(self, record: logging.LogRecord) -> None:
        """Show how the pull of an image goes on."""
        self._pull = record.getMessage()
        self._say(self._pull)

    def seconds(self, name: str) -> float | None:
        """Return how long a service took, or has taken so far; `None` if it has not begun."""
        if name in self._seconds:
            return self._seconds[name]
        return time.perf_counter() - self._since[name] if name in self._since else None

    def _change(self, name: str, state: str) -> None:
        if name in self._states:
            self._states[name] = state
            self._say(f"{name}: {state}")

    def _say(self, line: str) -> None:
        if not self._drawn and not self._quiet:
            with self._changing:
                click.echo(line, err=True)

    def _live(self) -> contextlib.AbstractContextManager[object]:
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        self._spinner = Spinner("line")
        console = Console(stderr=True, highlight=False)
        return Live(
            console=console,
            get_renderable=self._drawing,
            refresh_per_second=12,
            transient=True,
            redirect_stdout=False,
        )

    def _drawing(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2, 0, 0))
        for _ in range(3):
            table.add_column(no_wrap=True, overflow="ellipsis")
        for name, state in self._states.items():
            running = state == "starting"
            seconds = f"{self.seconds(name):.1f} s" if running else ""
            sign = self._spinner if running else Text(_SIGNS.get(state.split()[0], " "))
            table.add_row(sign, Text(name), Text(f"{state} {seconds}".strip()))
        if self._pull:
            table.add_row(Text(""), Text("image"), Text(self._pull))
        return table


_SIGNS = {"ready": "+", "failed": "!"}


def kind_of(handle: ServiceHandle) -> str:
    """Return how a service runs, and in which version, in a few words."""
    facts = handle.metadata
    version = facts.get("version", "unknown")
    words = [facts.get("backend", ""), "" if version == "unknown" else version]
    return " ".join(filter(None, words)) or "started"
