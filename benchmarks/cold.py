"""PostgreSQL: a cold run, the next test, start and stop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

from benchmarks._contenders import Contender
from benchmarks._figures import Mark
from benchmarks._rounds import add_sample, figures_of, take_rounds
from benchmarks._session import Session
from benchmarks._suites import Work
from benchmarks._timing import slope
from benchmarks.postgres_contenders import BARE, CONNECT, PROCESS

COLD = "Cold: one isolated test, whole pytest process"
GONE = "Cold: from the end of pytest until nothing of it is left"
NEXT = "The next isolated test: {work}"
FIRST_QUERY = "Start by the API, import to first query"
STOP = "Stop by the API"

_COLD_WORK = Work("runs DDL", 0)


def marks(works: Sequence[Work]) -> list[Mark]:
    """Return what the process backend is held against."""
    cold = Mark(COLD, PROCESS.name, 1.6, relative_to=BARE.name)
    return [cold, *(Mark(NEXT.format(work=work), PROCESS.name, 20.0) for work in works)]


def floor(work: str) -> str | None:
    """Return the name of the contender that others are shown as multiples of."""
    if work == COLD:
        return BARE.name
    return CONNECT.name if work.startswith(NEXT.partition("{")[0]) else None


def measure_cold(session: Session, contenders: Sequence[Contender]) -> None:
    """Time whole pytest processes with one test.

    The first run meets empty caches; one more fills what the first left, and is not counted.
    """
    figures = figures_of(session, COLD, contenders)
    gone = figures_of(session, GONE, contenders)
    suites = {c.name: session.suite(c, _COLD_WORK, 1) for c in contenders}

    def take(number: int, contender: Contender) -> None:
        result = session.run_suite(contender, suites[contender.name], 1, f"cold {contender.name}")
        add_sample(figures[contender.name], number, result.seconds)
        if result.gone_after is not None:
            add_sample(gone[contender.name], number, result.gone_after)

    take_rounds(session, session.options.runs + 2, contenders, take, [figures, gone])


def measure_next(session: Session, contenders: Sequence[Contender]) -> None:
    """Time whole pytest processes with few and with many tests; the slope is one more test."""
    for work in session.options.works:
        _measure_next(session, contenders, work, NEXT.format(work=work))


def _measure_next(
    session: Session, contenders: Sequence[Contender], work: Work, title: str
) -> None:
    figures = figures_of(session, title, contenders)
    sizes = session.options.sizes
    suites = {(c.name, n): session.suite(c, work, n) for c in contenders for n in sizes}

    def take(number: int, contender: Contender) -> None:
        run = partial(session.run_suite, contender, cache=f"next {contender.name}")
        if number == 0:  # fills the caches
            run(suites[contender.name, sizes[0]], sizes[0])
            return
        points = [(n, run(suites[contender.name, n], n).seconds * 1000) for n in sizes]
        figures[contender.name].samples.append(slope(points))
        figures[contender.name].points.append(points)

    take_rounds(session, session.options.runs + 1, contenders, take, [figures])


def measure_start_stop(session: Session, scripts: Sequence[tuple[Contender, str]]) -> None:
    """Time start and stop inside a process that does nothing else."""
    contenders = [contender for contender, _ in scripts]
    script_of = {contender.name: script for contender, script in scripts}
    queries = figures_of(session, FIRST_QUERY, contenders)
    stops = figures_of(session, STOP, contenders)

    def take(number: int, contender: Contender) -> None:
        result = session.run_script(contender, script_of[contender.name], f"start {contender.name}")
        seconds = json.loads(result.output.splitlines()[-1])
        add_sample(queries[contender.name], number, seconds["first query"])
        add_sample(stops[contender.name], number, seconds["stop"])

    take_rounds(session, session.options.runs + 2, contenders, take, [queries, stops])
