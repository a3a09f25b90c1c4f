"""One run of the benchmark: its options, its folder, the figures taken so far."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._contenders import Contender
from benchmarks._environments import python_of
from benchmarks._figures import Figure
from benchmarks._marks import Mark
from benchmarks._options import Options
from benchmarks._process import TIMEOUT, BenchmarkError, Run, child_environment, run
from benchmarks._suites import Work, write_suite

SCRIPTS = Path(__file__).resolve().parent / "_scripts"


@dataclass
class Session:
    """Writes suites, runs them, keeps the figures."""

    options: Options
    folder: Path
    figures: list[Figure] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    floors: dict[str, str] = field(default_factory=dict)
    """By work, the name of the contender that others are shown as multiples of."""
    took: dict[str, float] = field(default_factory=dict)
    """By measurement, the seconds it took."""
    errors: dict[str, str] = field(default_factory=dict)
    """By measurement, why it could not be taken at all."""
    server: Mapping[str, str] = field(default_factory=dict)
    """What leads to the server that runs for those that need one, as variables; empty if none."""
    _suites: int = 0

    def figure(self, work: str, contender: str, unit: str) -> Figure:
        """Start a figure of one contender."""
        figure = Figure(work, contender, unit)
        self.figures.append(figure)
        return figure

    def set_unit(self, work: str, unit: str) -> None:
        """Say what the figures of a work are counted in."""
        for figure in self.figures:
            if figure.work == work:
                figure.unit = unit

    def why_missing(self, contender: Contender) -> str | None:
        """Return why a contender cannot be measured here; None if it can.

        Raises:
            BenchmarkError: if its packages cannot be installed.
        """
        if contender.needs_server and not self.server:
            return "the server for it did not start"
        reason = contender.missing()
        if reason is None:
            python_of(contender.environment)
        return reason

    def suite(self, contender: Contender, work: Work, tests: int) -> Path:
        """Write a suite and return its folder."""
        return write_suite(self.suite_folder(f"{contender.name} {work}"), contender, work, tests)

    def suite_folder(self, name: str) -> Path:
        """Return where a suite goes, another folder each time.

        Its path is short: a socket in it has to have one of 107 characters at most.
        """
        self._suites += 1
        short = re.sub(r"\W+", "-", name)[:20]
        return self.folder / "suites" / f"{self._suites}-{short}"

    def run_suite(
        self,
        contender: Contender,
        suite: Path,
        tests: int,
        cache: str,
        *,
        timeout: float = TIMEOUT,
    ) -> Run:
        """Run a suite in a pytest process of its own and return how long the process took.

        Raises:
            BenchmarkError: if not exactly `tests` tests passed.
        """
        python = python_of(contender.environment)
        variables = dict(contender.variables)
        if contender.needs_server:
            variables.update(self.server)
        result = run(
            [*contender.prefix, python, "-m", "pytest", "-q", *contender.arguments, "."],
            environment=child_environment(self.cache(cache), variables),
            folder=suite,
            timeout=timeout,
        )
        if not re.search(rf"^{tests} passed\b", result.output, re.MULTILINE):
            raise BenchmarkError(f"not {tests} passed:\n{result.output[-2000:]}")
        return result

    def run_script(
        self,
        contender: Contender,
        script: str,
        cache: str,
        *arguments: str,
        variables: Mapping[str, str] | None = None,
    ) -> tuple[Run, Any]:
        """Run one of our scripts with a contender's interpreter.

        Returns:
            The run, and what the script printed as JSON in its last line.
        """
        python = python_of(contender.environment)
        given = {**contender.variables, **(variables or {})}
        result = run(
            [*contender.prefix, python, SCRIPTS / script, *arguments],
            environment=child_environment(self.cache(cache), given),
            folder=self.folder,
        )
        return result, json.loads(result.output.splitlines()[-1])

    def cache(self, name: str) -> Path:
        """Return the cache folder of this name, empty when it is first asked for."""
        folder = self.folder / "caches" / re.sub(r"\W+", "-", name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextlib.contextmanager
    def serving(self, contender: Contender) -> Iterator[None]:
        """Have a server of `contender` run meanwhile, for the contenders that need one.

        If it does not start, they are left out.
        """
        try:
            python = python_of(contender.environment)
        except BenchmarkError:
            yield
            return
        process = subprocess.Popen(
            [str(python), str(SCRIPTS / "serve.py")],
            env=child_environment(self.cache("server"), contender.variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            self.server = json.loads(process.stdout.readline() or "{}")
            yield
        finally:
            self.server = {}
            process.communicate(timeout=60)


def progress(text: str) -> None:
    """Tell on standard error how far the benchmark is; standard output is for its tables."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
    else:
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def end_progress() -> None:
    """Clear the line that progress was told in."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
