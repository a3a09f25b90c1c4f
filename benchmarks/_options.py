"""How much is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks._contenders import Contender
from benchmarks._suites import Work

MARKED = 30
"""Tables in the template that the marks are about: everything is measured with it."""


@dataclass(frozen=True)
class Options:
    """How much is measured. The defaults are what the marks are about."""

    runs: int = 5
    """Samples for each figure."""
    warm_up: int = 2
    """Runs before them: the first one ever, and one that fills what the first has left."""
    backends: tuple[str, ...] = ("process", "container")
    peers: bool = False
    tables: tuple[int, ...] = (1, MARKED, 200)
    """Tables in the templates of the next test."""
    kinds: tuple[str, ...] = ("reads", "writes", "runs DDL")
    """What the next test does."""
    sizes: tuple[int, ...] = (10, 50, 200)
    """Numbers of tests between which the cost of the next one is taken."""
    sizes_of_slow: tuple[int, ...] = (10, 50)
    """The same for contenders whose tests are slow."""
    redis_sizes: tuple[int, ...] = (1, 100, 500)
    migrations: int = 200
    """Files of migrations."""
    xdist_tests: tuple[int, int] = (40, 400)
    """Few and many tests with workers of pytest-xdist."""
    workers: tuple[int, ...] = (1, 2, 4, 8)
    shop_workers: tuple[int, ...] = (0, 1, 2, 4)
    distributions: tuple[int, ...] = (25, 300, 1000)
    """Distributions installed, among which plugins are found."""

    @classmethod
    def quick(cls, backends: tuple[str, ...], *, peers: bool) -> Options:
        """Return the small choice that shows whether everything works."""
        return cls(
            runs=1,
            warm_up=1,
            backends=backends,
            peers=peers,
            tables=(1,),
            kinds=("writes",),
            sizes=(1, 11),
            sizes_of_slow=(1, 11),
            redis_sizes=(1, 51),
            migrations=10,
            xdist_tests=(4, 20),
            workers=(1, 2),
            shop_workers=(0,),
            distributions=(25, 300),
        )

    def with_choice(self, tables: Sequence[int], tests: Sequence[int]) -> Options:
        """Return them with other numbers of tables or tests, where any are given."""
        chosen = self
        if tables:
            chosen = replace(chosen, tables=tuple(tables))
        if tests:
            chosen = replace(chosen, sizes=tuple(tests), sizes_of_slow=tuple(tests))
        return chosen

    @property
    def fewer_runs(self) -> int:
        """Samples of what takes long."""
        return min(self.runs, 3)

    def slopes_of(self, contender: Contender, work: Work) -> int:
        """Return how many slopes are taken of a contender's next test, fewer of what takes long."""
        if work.tables == MARKED:
            return self.fewer_runs if contender.slow_tests else self.runs
        return min(self.runs, 1 if contender.slow_tests else 2)

    def works(self) -> list[Work]:
        """Return what the next test is measured with."""
        return [Work(kind, tables) for tables in self.tables for kind in self.kinds]

    def sizes_for(self, contender: Contender) -> Sequence[int]:
        """Return the numbers of tests between which a contender's next test is taken."""
        return self.sizes_of_slow if contender.slow_tests else self.sizes
