"""Measure, print the tables, keep the samples."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from benchmarks import _machine, combined, postgres
from benchmarks._contenders import Contender
from benchmarks._figures import Figure, Mark, write_json
from benchmarks._process import adopted_orphans
from benchmarks._session import Options, Session, end_progress
from benchmarks._suites import Work
from benchmarks._table import work_table
from benchmarks.postgres_contenders import BARE, BY_HAND, CONNECT, OURS, PROCESS
from benchmarks.postgres_peers import PEERS, TESTCONTAINERS

MEASUREMENTS = ("cold", "next", "start-stop", "together", "redis", "shop")
KINDS = ("reads", "writes", "runs DDL")
RESULTS = Path(__file__).resolve().parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, 1 if a measurement went wrong, 130 if it was stopped on the way.

    A missed mark is printed, and no error.
    """
    asked = _parser().parse_args(arguments)
    options = _options(asked)
    facts = _machine.facts()
    print("\n".join(f"{name:>9}: {fact}" for name, fact in facts.items()))
    if _machine.busy():
        print("The machine is busy with other work: take the figures as rough.")
    with adopted_orphans(), tempfile.TemporaryDirectory(prefix="bench-") as folder:
        session = Session(options, Path(folder))
        stopped = _measure_until_stopped(session, asked)
    end_progress()
    marks = [*postgres.marks(options.works), *combined.marks()]
    _print_tables(session.figures, marks)
    if stopped:
        print("\nStopped on the way: of some there are fewer samples than asked for.")
    print(f"\nMedians of {options.runs} runs. Load at the end: {_machine.load()}.")
    asked_for = {key: str(value) for key, value in vars(asked).items()}
    write_json(asked.output, session.figures, marks, {**facts, **asked_for})
    print(f"Raw samples: {asked.output}")
    if stopped:
        return 130
    return 1 if any(figure.failed for figure in session.figures) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--only", choices=MEASUREMENTS, action="append", help="measure only this; repeatable")
    add("--backend", choices=tuple(OURS), action="append", help="of ours only this; repeatable")
    add("--peers", action="store_true", help="measure what else there is beside it")
    add("--runs", type=_at_least_one, default=5, metavar="N", help="samples each (default: 5)")
    add(
        "--tables",
        type=_at_least_one,
        action="append",
        metavar="N",
        help="tables in the template of the next test; repeatable (default: 1 and 30)",
    )
    add("--quick", action="store_true", help="2 runs of a small choice: does it work at all?")
    add("--output", type=Path, default=RESULTS / "latest.json", metavar="FILE")
    return parser


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def _options(asked: argparse.Namespace) -> Options:
    if asked.quick:
        return Options(runs=2, sizes=(1, 11), works=(Work("writes", 1),))
    tables = asked.tables or [1, 30]
    works = tuple(Work(kind, number) for number in tables for kind in KINDS)
    return Options(runs=asked.runs, sizes=(1, 11, 51), works=works)


def _measure_until_stopped(session: Session, asked: argparse.Namespace) -> bool:
    """Measure; on Ctrl-C or SIGTERM keep what there is and return True."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _measure(session, asked)
    except KeyboardInterrupt:
        return True
    return False


def _measure(session: Session, asked: argparse.Namespace) -> None:
    measurements = asked.only or MEASUREMENTS
    ours = [OURS[name] for name in asked.backend or OURS]
    peers = list(PEERS) if asked.peers else []
    if "cold" in measurements:
        postgres.measure_cold(session, [BARE, *ours, *peers])
    if "next" in measurements:
        with session.server(PROCESS):
            by_hand = [BY_HAND] if asked.peers else []
            postgres.measure_next(session, [CONNECT, *ours, *by_hand, *peers])
    if "start-stop" in measurements:
        scripts: list[tuple[Contender, str]] = [(one, "start_stop.py") for one in ours]
        if asked.peers:
            scripts.append((TESTCONTAINERS, "start_stop_testcontainers.py"))
        postgres.measure_start_stop(session, scripts)
    backends = asked.backend or list(OURS)
    if "together" in measurements:
        combined.measure_together(session)
    if "redis" in measurements:
        combined.measure_redis_start(session, backends)
        combined.measure_redis_next(session)
    if "shop" in measurements:
        combined.measure_shop(session, backends)


def _print_tables(figures: Sequence[Figure], marks: Sequence[Mark]) -> None:
    order = list(dict.fromkeys(figure.work for figure in figures))
    by_work = sorted(figures, key=lambda figure: order.index(figure.work))
    for work, of_work in groupby(by_work, key=lambda figure: figure.work):
        floor = postgres.floor(work) or combined.floor(work)
        print(f"\n{work_table(list(of_work), marks, floor)}")
    wrong = {
        (figure.contender, figure.left_out): figure.work for figure in figures if figure.failed
    }
    for (contender, reason), work in wrong.items():
        print(f"\n{contender} went wrong in '{work}': {reason}")


if __name__ == "__main__":
    sys.exit(main())
