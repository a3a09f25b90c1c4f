"""PostgreSQL: what one further isolated test costs."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks._contenders import Contender
from benchmarks._marks import Mark
from benchmarks._options import MARKED
from benchmarks._rounds import slope_rounds
from benchmarks._session import Session
from benchmarks._suites import Work
from benchmarks.postgres_contenders import BY_HAND, CONNECT, CONTAINER, NOT_ISOLATED, PROCESS
from benchmarks.postgres_peers import PYTEST_POSTGRESQL

NEXT = "The next isolated test: {work}"
READS = "reads"
ROLLS_BACK = "rolls back"


def measure_next(session: Session) -> None:
    """Time whole pytest processes with few and with many tests; the slope is one more test."""
    works = session.options.works()
    if MARKED in session.options.tables:
        works.append(Work(ROLLS_BACK, MARKED))
    with session.serving(PROCESS):
        for work in works:
            _measure(session, work)


def _measure(session: Session, work: Work) -> None:
    options = session.options
    contenders = _contenders(session, work)
    suites = {
        (contender.name, tests): session.suite(contender, work, tests)
        for contender in contenders
        for tests in options.sizes_for(contender)
    }

    def take(contender: Contender, tests: int) -> float:
        suite, cache = suites[contender.name, tests], f"next {contender.name}"
        return session.run_suite(contender, suite, tests, cache).seconds * 1000

    title = NEXT.format(work=work)
    slope_rounds(
        session,
        title,
        contenders,
        take,
        sizes=options.sizes_for,
        runs=lambda contender: options.slopes_of(contender, work),
        floor=CONNECT,
    )
    session.marks += _marks(work, title)


def _contenders(session: Session, work: Work) -> list[Contender]:
    """Return who is measured with this work.

    Our containers are measured with one work only: a test there differs from one with a process
    by how its server was started, and by nothing that the test does.
    """
    options = session.options
    contenders = [CONNECT]
    if "process" in options.backends:
        contenders.append(PROCESS)
    if work.kind in (READS, ROLLS_BACK):
        contenders.append(NOT_ISOLATED)
    if work.kind == ROLLS_BACK:
        return contenders
    tables = MARKED if MARKED in options.tables else options.tables[0]
    if work == Work("writes", tables) and "container" in options.backends:
        contenders.append(CONTAINER)
    if options.peers:
        contenders += [BY_HAND, PYTEST_POSTGRESQL]
    return contenders


def _marks(work: Work, title: str) -> Sequence[Mark]:
    ours, peer = PROCESS.name, PYTEST_POSTGRESQL.name
    if work.tables != MARKED:
        return []
    if work.kind == "writes":
        return [Mark(title, ours, 5), Mark(title, ours, 0.1, (peer,))]
    if work.kind == "runs DDL":
        return [Mark(title, ours, 15), Mark(title, ours, 0.25, (peer,))]
    return [Mark(title, ours, 1, (one.name,), over=True) for one in (CONNECT, NOT_ISOLATED)]
