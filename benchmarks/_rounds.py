"""Rounds in which contenders take turns, and the figures that come of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmarks._contenders import Contender
from benchmarks._figures import Figure
from benchmarks._process import BenchmarkError
from benchmarks._session import Session, progress
from benchmarks._timing import interleave, slope


def sample_rounds(
    session: Session,
    titles: Sequence[str],
    contenders: Sequence[Contender],
    take: Callable[[Contender], Sequence[float | None]],
    *,
    runs: int | Callable[[Contender], int] | None = None,
    warm_up: int | None = None,
    unit: str = "ms",
    floor: Contender | None = None,
) -> None:
    """Take samples of one or several works at once, contenders in turn.

    Args:
        session: Where the figures go.
        titles: What the works are called.
        contenders: Who takes turns.
        take: Returns one value for each work, in `unit`; None for what cannot be seen here.
        runs: How many samples, or what returns this; by default as many as were asked for.
        warm_up: How many rounds before them; by default as many as were asked for.
        unit: Of all figures.
        floor: Whom the others are shown as multiples of, in the first work.

    The first round meets empty caches and is kept apart. Those after it that only warm up are not
    kept at all.
    """
    before = session.options.warm_up if warm_up is None else warm_up
    figures = [_figures_of(session, title, contenders, unit) for title in titles]
    if floor is not None:
        session.floors[titles[0]] = floor.name

    def samples_of(contender: Contender) -> int:
        return runs(contender) if callable(runs) else runs or session.options.runs

    def take_one(number: int, contender: Contender) -> None:
        if number >= before + samples_of(contender):
            return
        values = take(contender)
        for figure, value in zip((of[contender.name] for of in figures), values, strict=True):
            if value is None:
                continue
            if number == 0 and before:
                figure.first = value
            if number >= before:
                figure.samples.append(value)

    rounds = before + max(samples_of(contender) for contender in contenders)
    _take_rounds(session, rounds, contenders, take_one, figures)


def slope_rounds(
    session: Session,
    title: str,
    contenders: Sequence[Contender],
    take: Callable[[Contender, int], float],
    *,
    sizes: Callable[[Contender], Sequence[int]],
    runs: Callable[[Contender], int],
    floor: Contender | None = None,
) -> None:
    """Take what one further test costs: the slope over suites with few and with many tests.

    Args:
        session: Where the figures go.
        title: What the work is called.
        contenders: Who takes turns.
        take: Runs a suite with so many tests and returns milliseconds.
        sizes: Returns the numbers of tests of a contender's suites.
        runs: Returns how many slopes of a contender are taken.
        floor: Whom the others are shown as multiples of.
    """
    figures = _figures_of(session, title, contenders, "ms")
    if floor is not None:
        session.floors[title] = floor.name

    def take_one(number: int, contender: Contender) -> None:
        if number == 0:  # fills the caches
            take(contender, sizes(contender)[0])
            return
        if number > runs(contender):
            return
        points = [(tests, take(contender, tests)) for tests in sizes(contender)]
        figures[contender.name].samples.append(slope(points))
        figures[contender.name].points.append(points)

    rounds = 1 + max(runs(contender) for contender in contenders)
    _take_rounds(session, rounds, contenders, take_one, [figures])


def part_rounds(
    session: Session,
    contender: Contender,
    take: Callable[[], Mapping[str, Mapping[str, float]]],
    *,
    title: str,
    unit: str = "ms",
    warm_up: int | None = None,
) -> None:
    """Take apart what one contender does: several figures from each run.

    Args:
        session: Where the figures go.
        contender: Who is measured.
        take: Returns for each work the parts of it and their values. A part that is missing in
            some rounds is 0 there.
        title: The work that is shown if it goes wrong.
        unit: Of all figures.
        warm_up: How many rounds before those that count; by default as many as were asked for.
    """
    before = session.options.warm_up if warm_up is None else warm_up
    rounds = before + session.options.runs
    taken: list[Mapping[str, Mapping[str, float]]] = []
    failed = False
    try:
        reason = session.why_missing(contender)
        for number in range(0 if reason else rounds):
            progress(f"{title}: {contender.name}, round {number + 1} of {rounds}")
            values = take()
            if number >= before:
                taken.append(values)
    except BenchmarkError as error:
        reason, failed = str(error), True
    if reason is not None:
        session.figure(title, contender.name, unit).leave_out(reason, failed=failed)
        return
    for work in dict.fromkeys(work for values in taken for work in values):
        of_work = [values.get(work, {}) for values in taken]
        for part in dict.fromkeys(part for parts in of_work for part in parts):
            figure = session.figure(work, part, unit)
            figure.samples += [parts.get(part, 0.0) for parts in of_work]


def _figures_of(
    session: Session, title: str, contenders: Sequence[Contender], unit: str
) -> dict[str, Figure]:
    return {contender.name: session.figure(title, contender.name, unit) for contender in contenders}


def _take_rounds(
    session: Session,
    rounds: int,
    contenders: Sequence[Contender],
    take: Callable[[int, Contender], None],
    figures: Sequence[dict[str, Figure]],
) -> None:
    """Interleave. A contender that is missing or fails is left out from then on."""
    title = next((figure.work for figure in figures[0].values()), "")

    def take_or_leave_out(number: int, contender: Contender) -> None:
        own = [owners[contender.name] for owners in figures]
        if any(figure.left_out for figure in own):
            return
        progress(f"{title}: {contender.name}, round {number + 1} of {rounds}")
        failed = False
        try:
            reason = session.why_missing(contender) if number == 0 else None
            if reason is None:
                take(number, contender)
        except BenchmarkError as error:
            reason, failed = str(error), True
        if reason is not None:
            for figure in own:
                figure.leave_out(reason, failed=failed)

    interleave(rounds, contenders, take_or_leave_out)
