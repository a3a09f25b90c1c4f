"""Where the time of our own cold run goes, from before its process is made until it has ended."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks._contenders import Contender
from benchmarks._environments import python_of
from benchmarks._figures import find
from benchmarks._process import BenchmarkError, child_environment, run
from benchmarks._rounds import part_rounds
from benchmarks._session import SCRIPTS, Session
from benchmarks.cold import WORK
from benchmarks.postgres_contenders import BARE, OURS

PATH = "Where the time goes: cold, {name}, step after step"
MOMENTS = "Where the time goes: cold, {name}, after the process was made"
TOTAL = "in all"
REST = "between these medians and that of all"

_EXPECTED = {"start", "provision", "launch", "the wait for an answer"}


def measure_breakdown(session: Session) -> None:
    """Take apart the cold run that `cold` measures, on each backend, and that of the floor."""
    ours = [OURS[backend] for backend in session.options.backends]
    for contender in [BARE, *ours]:
        suite = session.suite(contender, WORK, 1)
        title = PATH.format(name=contender.name)
        part_rounds(session, contender, partial(_take, session, contender, suite), title=title)
        _add_rest(session, title)


def _take(session: Session, contender: Contender, suite: Path) -> dict[str, dict[str, float]]:
    result = run(
        [python_of(contender.environment), SCRIPTS / "traced_pytest.py", "-q", "."],
        environment=child_environment(session.cache("breakdown"), contender.variables),
        folder=suite,
    )
    if not re.search(r"^1 passed\b", result.output, re.MULTILINE):
        raise BenchmarkError(f"not 1 passed:\n{result.output[-2000:]}")
    told = json.loads(result.output.splitlines()[-1])
    steps = _steps(told, result.began, result.ended)
    if contender is BARE:
        return {PATH.format(name=contender.name): steps}
    missing = _EXPECTED - {name for name, _, _ in told["spans"]}
    if missing:
        raise BenchmarkError(f"the trace has no span of: {', '.join(sorted(missing))}")
    return {
        PATH.format(name=contender.name): steps,
        MOMENTS.format(name=contender.name): _moments(told, result.began),
    }


def _steps(told: Mapping[str, Any], began: float, ended: float) -> dict[str, float]:
    """Return how long each step of the main thread took; together they are the whole."""
    steps: dict[str, float] = {}
    last = began
    for step, moment in [*told["marks"], ("Python's end", ended)]:
        steps[step] = steps.get(step, 0.0) + (moment - last) * 1000
        last = moment
    return {**steps, TOTAL: (ended - began) * 1000}


def _moments(told: Mapping[str, Any], began: float) -> dict[str, float]:
    """Return when spans began and ended, wherever they ran."""
    moments: dict[str, float] = {}
    for name, first, last in sorted(told["spans"], key=lambda span: span[1]):
        if first == last:
            moments.setdefault(name, (first - began) * 1000)
            continue
        moments.setdefault(f"{name} begins", (first - began) * 1000)
        moments[f"{name} ends"] = (last - began) * 1000
    return dict(sorted(moments.items(), key=lambda moment: moment[1]))


def _add_rest(session: Session, title: str) -> None:
    """Add what is between the sum of the steps' medians and the median of the whole."""
    whole = find(session.figures, title, TOTAL)
    if whole is None:
        return
    steps = [f for f in session.figures if f.work == title and f is not whole]
    rest = session.figure(title, REST, "ms")
    rest.samples.append(median(whole.samples) - sum(median(step.samples) for step in steps))
    session.figures.remove(whole)
    session.figures.append(whole)
