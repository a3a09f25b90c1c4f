"""Many files of migrations: runs of a suite after which nothing has changed, or one file has."""

from __future__ import annotations

import dataclasses
import json

from benchmarks._contenders import Contender
from benchmarks._marks import Mark
from benchmarks._rounds import sample_rounds
from benchmarks._session import Session
from benchmarks._suites import Work
from benchmarks.postgres_contenders import PROCESS
from benchmarks.postgres_peers import PYTEST_POSTGRESQL

_EMPTY = dataclasses.replace(PROCESS, name="cleanroom, empty template")
_CHANGED = dataclasses.replace(PROCESS, name="cleanroom, one file changed")
_SECOND = dataclasses.replace(PROCESS, name="cleanroom, second run, nothing changed")
_THIRD = dataclasses.replace(PROCESS, name="cleanroom, third run, nothing changed")


def measure_migrations(session: Session) -> None:
    """Time whole pytest processes with one test on a template of many migrations.

    In each round one file is changed, and the suite runs three times. The first round of all meets
    empty caches. pytest-postgresql does not ask what has changed: it migrates in each run.
    """
    if "process" not in session.options.backends:
        return
    files = session.options.migrations
    work = Work("migrated when", files)
    contenders = [_EMPTY, _CHANGED, _SECOND, _THIRD]
    suites = dict.fromkeys((each.name for each in contenders), session.suite(PROCESS, work, 1))
    changed = suites[_CHANGED.name] / "migrations" / f"{files // 2:04}.sql"
    suites[_EMPTY.name] = session.suite(PROCESS, Work("connects", 0), 1)
    if session.options.peers:
        contenders.append(PYTEST_POSTGRESQL)
        suites[PYTEST_POSTGRESQL.name] = session.suite(PYTEST_POSTGRESQL, work, 1)

    def take(contender: Contender) -> list[float | None]:
        folder = suites[contender.name]
        if contender is _CHANGED:
            with changed.open("a", encoding="utf-8") as file:
                file.write("-- changed\n")
        cache = f"migrations {contender.environment}"
        result = session.run_suite(contender, folder, 1, cache)
        ran = 0 if contender is _EMPTY else json.loads((folder / "migrated.json").read_text())
        return [result.seconds * 1000, float(ran)]

    whole = f"Cold with {files} migrations: one test, whole pytest process"
    ran = f"Cold with {files} migrations: how often they ran in that run"
    sample_rounds(session, [whole, ran], contenders, take, floor=_EMPTY)
    session.set_unit(ran, "times")
    for later in (_SECOND, _THIRD):
        session.marks += [
            Mark(whole, later.name, 50, (_EMPTY.name,), over=True),
            Mark(ran, later.name, 0),
        ]
