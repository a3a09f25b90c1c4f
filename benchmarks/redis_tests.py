"""Redis: a cold run, the next test, start and stop."""

from __future__ import annotations

from benchmarks._contenders import Contender
from benchmarks._marks import Mark
from benchmarks._rounds import sample_rounds, slope_rounds
from benchmarks._session import Session
from benchmarks._suites import write_redis_suite
from benchmarks.redis_contenders import (
    BARE,
    NOT_AHEAD,
    NOT_ISOLATED,
    OURS,
    PROCESS,
    PYTEST_REDIS,
    TESTCONTAINERS,
)

COLD = "Redis, cold: one isolated test, whole pytest process"
NEXT = "Redis: the next isolated test"
FIRST_PING = "Redis: start by the API, import to first PING"
STOP = "Redis: stop by the API"


def measure_redis(session: Session) -> None:
    """Time whole pytest processes with one test and with many; start and stop by the API."""
    peers = (PYTEST_REDIS, TESTCONTAINERS) if session.options.peers else ()
    contenders = [BARE, *(OURS[name] for name in session.options.backends), *peers]
    only_cold = [NOT_AHEAD] if PROCESS in contenders else []
    of_next = [*contenders, NOT_ISOLATED]
    sizes = session.options.redis_sizes
    suites = {
        (contender.name, tests): write_redis_suite(
            session.suite_folder(f"redis {contender.name}"), contender, tests
        )
        for contender in (*of_next, *only_cold)
        for tests in {1, *sizes}
    }

    def take(contender: Contender, tests: int) -> float:
        suite, cache = suites[contender.name, tests], f"redis {contender.name}"
        return session.run_suite(contender, suite, tests, cache).seconds * 1000

    cold = [*contenders, *only_cold]
    sample_rounds(session, [COLD], cold, lambda one: [take(one, 1)], floor=BARE)
    runs = session.options.runs
    slope_rounds(
        session,
        NEXT,
        of_next,
        take,
        sizes=lambda _: sizes,
        runs=lambda _: runs,
        floor=BARE,
    )
    session.marks += [
        Mark(NEXT, PROCESS.name, 0.5, (one.name,), over=True) for one in (BARE, NOT_ISOLATED)
    ]
    _measure_start_stop(session)


def _measure_start_stop(session: Session) -> None:
    contenders = [OURS[backend] for backend in session.options.backends]

    def take(contender: Contender) -> list[float | None]:
        cache = f"redis start {contender.name}"
        _, seconds = session.run_script(contender, "start_stop_redis.py", cache)
        return [seconds["first ping"] * 1000, seconds["stop"] * 1000]

    sample_rounds(session, [FIRST_PING, STOP], contenders, take)
    session.marks.append(Mark(STOP, PROCESS.name, 50))
