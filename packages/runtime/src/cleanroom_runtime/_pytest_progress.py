"""Showing in pytest's terminal what takes long, while it goes on: the pull of an image."""

from __future__ import annotations

import logging
import sys
from contextlib import nullcontext

import pytest

_LOGGER = logging.getLogger("cleanroom.pull")


class PullProgress(logging.Handler):
    """Writes what is logged about pulls to the terminal, though pytest captures what tests write.

    An xdist worker has no terminal of its own: it writes to the standard error of the session.
    """

    def __init__(self, config: pytest.Config) -> None:
        super().__init__(logging.INFO)
        self._config = config

    def begin(self) -> None:
        """Write from now on, unless pytest was told to be quiet."""
        if self._config.get_verbosity() >= 0:
            self._level_before = _LOGGER.level
            _LOGGER.setLevel(logging.INFO)
            _LOGGER.addHandler(self)

    def end(self) -> None:
        """Write no more."""
        if self in _LOGGER.handlers:
            _LOGGER.removeHandler(self)
            _LOGGER.setLevel(self._level_before)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        line = f"cleanroom: {record.getMessage()}"
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        with nullcontext() if capture is None else capture.global_and_fixture_disabled():
            if reporter is None or hasattr(self._config, "workerinput"):
                print(line, file=sys.stderr, flush=True)  # noqa: T201 - what it is for
            else:
                reporter.ensure_newline()
                reporter.write_line(line, flush=True)
