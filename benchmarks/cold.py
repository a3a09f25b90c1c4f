"""PostgreSQL from nothing: a whole pytest process with one test, and start and stop by the API."""

from __future__ import annotations

from benchmarks._contenders import Contender
from benchmarks._marks import Mark
from benchmarks._rounds import sample_rounds
from benchmarks._session import Session
from benchmarks._suites import Work
from benchmarks.postgres_contenders import BARE, CONTAINER, NOT_AHEAD, OURS, PROCESS
from benchmarks.postgres_peers import IMAGE_BY_HAND, PY_PGLITE, PYTEST_POSTGRESQL, TESTCONTAINERS

COLD = "Cold: one isolated test, whole pytest process"
GONE = "Cold: from the end of pytest until nothing of it is left"
FIRST_QUERY = "Start by the API, import to first query"
STOP = "Stop by the API"

WORK = Work("runs DDL", 0)
_PEERS = (PYTEST_POSTGRESQL, TESTCONTAINERS, IMAGE_BY_HAND, PY_PGLITE)


def measure_cold(session: Session) -> None:
    """Time whole pytest processes with one test."""
    ours = [OURS[name] for name in session.options.backends]
    if PROCESS in ours:
        ours.append(NOT_AHEAD)
    contenders = [BARE, *ours, *(_PEERS if session.options.peers else ())]
    suites = {contender.name: session.suite(contender, WORK, 1) for contender in contenders}

    def take(contender: Contender) -> list[float | None]:
        result = session.run_suite(contender, suites[contender.name], 1, f"cold {contender.name}")
        gone = result.gone_after
        return [result.seconds * 1000, None if gone is None else gone * 1000]

    sample_rounds(session, [COLD, GONE], contenders, take, floor=BARE)
    session.marks += [
        Mark(COLD, PROCESS.name, 1.25, (BARE.name,)),
        Mark(COLD, PROCESS.name, 0.5, (PYTEST_POSTGRESQL.name,)),
        Mark(COLD, PROCESS.name, 0.25, (TESTCONTAINERS.name,)),
        Mark(COLD, CONTAINER.name, 0.7, (TESTCONTAINERS.name,)),
    ]


def measure_start_stop(session: Session) -> None:
    """Time start and stop inside a process that does nothing else."""
    contenders = [OURS[name] for name in session.options.backends]
    scripts = {contender.name: "start_stop.py" for contender in contenders}
    if session.options.peers:
        contenders.append(TESTCONTAINERS)
        scripts[TESTCONTAINERS.name] = "start_stop_testcontainers.py"

    def take(contender: Contender) -> list[float | None]:
        name = contender.name
        _, seconds = session.run_script(contender, scripts[name], f"start {name}")
        return [seconds["first query"] * 1000, seconds["stop"] * 1000]

    sample_rounds(session, [FIRST_QUERY, STOP], contenders, take)
    session.marks.append(Mark(STOP, PROCESS.name, 50))
