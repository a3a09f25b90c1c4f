"""Measure, print the tables, keep the samples."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from itertools import groupby
from pathlib import Path

from benchmarks import _machine
from benchmarks._figures import write_json
from benchmarks._marks import as_data
from benchmarks._measurements import MEASUREMENTS
from benchmarks._options import Options
from benchmarks._process import BenchmarkError, adopted_orphans
from benchmarks._session import Session, end_progress
from benchmarks._table import marks_table, work_table

BACKENDS = ("process", "container")
RESULTS = Path(__file__).resolve().parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, 1 if a measurement went wrong, 130 if it was stopped on the way.

    A missed mark is printed, and no error.
    """
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.tests and len(set(asked.tests)) < 2:
        parser.error("a slope needs two different numbers of --tests at least")
    options = _options(asked)
    facts = _machine.facts()
    print("\n".join(f"{name:>9}: {fact}" for name, fact in facts.items()))
    if _machine.busy():
        print("The machine is busy with other work: take the figures as rough.")
    with adopted_orphans(), tempfile.TemporaryDirectory(prefix="bench-") as folder:
        session = Session(options, Path(folder))
        stopped = _measure_until_stopped(session, asked.only or MEASUREMENTS)
    end_progress()
    if asked.quick:
        session.marks.clear()  # they are about more than a quick run measures
    _print_tables(session)
    if stopped:
        print("\nStopped on the way: of some there are fewer samples than asked for.")
    print(f"\nMedians of {options.runs} runs. Load at the end: {_machine.load()}.")
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in session.took.items())
    print(f"It took {sum(session.took.values()) / 60:.1f} minutes: {took}.")
    asked_for = {key: str(value) for key, value in vars(asked).items()}
    marks = as_data(session.marks, session.figures)
    write_json(asked.output, session.figures, marks, {**facts, **asked_for, "took": session.took})
    print(f"Raw samples: {asked.output}")
    if stopped:
        return 130
    return 1 if session.errors or any(figure.failed for figure in session.figures) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--only", choices=MEASUREMENTS, action="append", help="measure only this; repeatable")
    add("--backend", choices=BACKENDS, action="append", help="of ours only this; repeatable")
    add("--peers", action="store_true", help="measure what else there is beside it")
    add("--runs", type=_at_least_one, default=5, metavar="N", help="samples each (default: 5)")
    add(
        "--tables",
        type=_at_least_one,
        action="append",
        metavar="N",
        help="tables in the template of the next test; repeatable (default: 1, 30 and 200)",
    )
    add(
        "--tests",
        type=_at_least_one,
        action="append",
        metavar="N",
        help="numbers of tests between which the next one is taken, two at least, for all alike; "
        "repeatable (default: 10, 50 and 200; 10 and 50 where one test is slow)",
    )
    add(
        "--quick", action="store_true", help="1 run of a small choice, without marks: does it work?"
    )
    add("--output", type=Path, default=RESULTS / "latest.json", metavar="FILE")
    return parser


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def _options(asked: argparse.Namespace) -> Options:
    backends = tuple(asked.backend or BACKENDS)
    if asked.quick:
        return Options.quick(backends, peers=asked.peers)
    options = Options(runs=asked.runs, backends=backends, peers=asked.peers)
    return options.with_choice(asked.tables or (), asked.tests or ())


def _measure_until_stopped(session: Session, names: Collection[str]) -> bool:
    """Measure; on Ctrl-C or SIGTERM keep what there is and return True."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for name in MEASUREMENTS:
            if name not in names:
                continue
            began = time.monotonic()
            try:
                MEASUREMENTS[name](session)
            except BenchmarkError as error:
                session.errors[name] = str(error)
            finally:
                session.took[name] = time.monotonic() - began
    except KeyboardInterrupt:
        return True
    return False


def _print_tables(session: Session) -> None:
    figures = session.figures
    order = list(dict.fromkeys(figure.work for figure in figures))
    by_work = sorted(figures, key=lambda figure: order.index(figure.work))
    for work, of_work in groupby(by_work, key=lambda figure: figure.work):
        print(f"\n{work_table(list(of_work), session.marks, session.floors.get(work))}")
    if table := marks_table(session.marks, figures):
        print(f"\n{table}")
    wrong = {
        (figure.contender, figure.left_out): figure.work for figure in figures if figure.failed
    }
    for (contender, reason), work in wrong.items():
        print(f"\n{contender} went wrong in '{work}': {reason}")
    for name, reason in session.errors.items():
        print(f"\n'{name}' went wrong: {reason}")


if __name__ == "__main__":
    sys.exit(main())
