"""Rounds in which contenders take turns, and the figures that come of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks._contenders import Contender
from benchmarks._figures import Figure
from benchmarks._process import BenchmarkError
from benchmarks._session import Session, progress
from benchmarks._timing import interleave


def figures_of(session: Session, work: str, contenders: Sequence[Contender]) -> dict[str, Figure]:
    """Start a figure of each contender for this work."""
    return {contender.name: session.figure(work, contender.name) for contender in contenders}


def add_sample(figure: Figure, number: int, seconds: float) -> None:
    """Add what one round gave; the second one, which fills caches, is left out."""
    if number == 0:
        figure.first = seconds * 1000
    elif number > 1:
        figure.samples.append(seconds * 1000)


def take_rounds(
    session: Session,
    rounds: int,
    contenders: Sequence[Contender],
    take: Callable[[int, Contender], None],
    figures: Sequence[dict[str, Figure]],
) -> None:
    """Interleave. A contender that is missing or fails is left out from then on."""
    title = next(iter(figures[0].values())).work

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
