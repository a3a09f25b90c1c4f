"""PostgreSQL with the workers of pytest-xdist."""

from __future__ import annotations

import dataclasses

from benchmarks._contenders import Contender
from benchmarks._marks import Mark
from benchmarks._options import MARKED
from benchmarks._rounds import sample_rounds
from benchmarks._session import Session
from benchmarks._suites import Work
from benchmarks.postgres_contenders import PROCESS
from benchmarks.postgres_peers import PYTEST_POSTGRESQL

WORK = Work("writes", MARKED)
_OURS = dataclasses.replace(PROCESS, environment="services")
_TIMEOUT = 600.0
"""Seconds: hundreds of tests that take hundreds of milliseconds are not hung."""
_PEER = dataclasses.replace(PYTEST_POSTGRESQL, environment="pytest-postgresql-xdist")


def measure_workers(session: Session) -> None:
    """Time whole pytest processes with many tests, and what each costs beyond the first few."""
    if "process" not in session.options.backends:
        return
    few, many = session.options.xdist_tests
    ours, peer, alone = (
        _with_workers(contender, count).name
        for contender, count in ((_OURS, 2), (_PEER, 2), (_OURS, 1))
    )
    kinds = [_OURS, _PEER] if session.options.peers else [_OURS]
    contenders = [
        _with_workers(contender, count) for count in session.options.workers for contender in kinds
    ]
    suites = {
        (contender.environment, tests): session.suite(contender, WORK, tests)
        for contender in kinds
        for tests in (few, many)
    }

    def take(contender: Contender) -> list[float | None]:
        def run(tests: int) -> float:
            suite, cache = suites[contender.environment, tests], f"xdist {contender.environment}"
            result = session.run_suite(contender, suite, tests, cache, timeout=_TIMEOUT)
            return result.seconds * 1000

        if contender.environment == _PEER.environment:
            return [run(many), None]
        of_few, of_many = run(few), run(many)
        return [of_many, (of_many - of_few) / (many - few)]

    def runs(contender: Contender) -> int:
        """Return fewer of the peer, which takes minutes."""
        return 1 if contender.environment == _PEER.environment else session.options.fewer_runs

    whole = f"xdist: {many} tests that write and commit, whole pytest process"
    further = f"xdist: each of {many} tests beyond the first {few}"
    # None is run only to warm up: the first test is one of hundreds.
    sample_rounds(session, [whole, further], contenders, take, runs=runs, warm_up=0)
    for figure in session.figures:
        if figure.work == further and not figure.samples and not figure.left_out:
            figure.leave_out("it takes minutes, and is run with all tests only", failed=False)
    session.marks += [
        Mark(whole, ours, 0.2, (peer,)),
        Mark(further, ours, 1.0, (alone,)),
    ]


def _with_workers(contender: Contender, count: int) -> Contender:
    return dataclasses.replace(
        contender, name=f"{contender.name}, -n {count}", arguments=("-n", str(count))
    )
