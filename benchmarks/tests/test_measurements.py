"""Each measurement works, in the smallest choice of all, with the packages of this environment."""

import dataclasses
import re
import sys
from pathlib import Path

import pytest

from benchmarks import together
from benchmarks._contenders import Contender
from benchmarks._measurements import MEASUREMENTS
from benchmarks._options import Options
from benchmarks._process import BenchmarkError, adopted_orphans
from benchmarks._rounds import part_rounds, sample_rounds, slope_rounds
from benchmarks._session import Session
from benchmarks.breakdown import PATH, REST, TOTAL
from benchmarks.migrations import measure_migrations
from benchmarks.postgres_contenders import PROCESS

README = Path(__file__).parents[1] / "README.md"
SHOP = README.parents[1] / "examples" / "shop"
SMALLEST = dataclasses.replace(Options.quick(("process",), peers=False), warm_up=0)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session whose contenders all have this environment, so that none is installed."""
    for module in [module for name, module in sys.modules.items() if name.startswith("benchmarks")]:
        if hasattr(module, "python_of"):
            monkeypatch.setattr(module, "python_of", lambda name: Path(sys.executable))
    return Session(SMALLEST, tmp_path)


def test_the_readme_names_every_measurement() -> None:
    """Each name that `--only` takes is in the README, in order, and no other."""
    named = re.findall(r"^\| `([a-z][a-z-]*)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert named == list(MEASUREMENTS)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="some of them ask Linux's /proc")
@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_measurement_gives_figures(
    name: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of its figures is left out, and each of its marks is about figures that there are."""
    variables = {"CLEANROOM_BACKEND": "process", "PYTHONPATH": str(SHOP)}
    alone = dataclasses.replace(together._NONE, variables=variables)
    monkeypatch.setattr(together, "_NONE", alone)  # the shop is not installed here
    with adopted_orphans():
        MEASUREMENTS[name](session)
    assert session.figures
    assert [figure.left_out for figure in session.figures if figure.left_out] == []
    assert [figure.work for figure in session.figures if not figure.samples] == []
    works = {figure.work for figure in session.figures}
    assert {mark.work for mark in session.marks} | session.floors.keys() <= works
    if name == "breakdown":
        check_breakdown(session)
    if name == "migrations":
        check_migrations(session)


def check_breakdown(session: Session) -> None:
    """The steps, and what is between medians, are the whole."""
    work = PATH.format(name=PROCESS.name)
    steps = {f.contender: f.samples[0] for f in session.figures if f.work == work}
    assert list(steps)[-2:] == [REST, TOTAL]
    assert {"launch", "the wait for an answer", "fixture postgres_db", "the test"} <= steps.keys()
    assert all(milliseconds >= 0 for step, milliseconds in steps.items() if step != REST)
    assert sum(steps.values()) == pytest.approx(2 * steps[TOTAL])


def check_migrations(session: Session) -> None:
    """After a change of one file they run again."""
    ran = {f.contender: f.samples[0] for f in session.figures if f.unit == "times"}
    assert ran["cleanroom, one file changed"] == 1
    assert ran["cleanroom, empty template"] == 0


# -- rounds


@pytest.fixture
def rounds(session: Session) -> Session:
    """A session of two samples after one round that is kept apart."""
    session.options = dataclasses.replace(SMALLEST, runs=2, warm_up=1)
    return session


ONE, OTHER = Contender("one", "bare"), Contender("other", "bare")


def test_samples_are_taken_in_turn_and_the_first_is_kept_apart(rounds: Session) -> None:
    """A B, A B; what cannot be seen has no sample."""
    taken: list[str] = []

    def take(contender: Contender) -> list[float | None]:
        taken.append(contender.name)
        return [float(len(taken)), None]

    sample_rounds(rounds, ["work", "unseen"], [ONE, OTHER], take, floor=ONE)
    assert taken == ["one", "other"] * 3
    assert [(f.first, f.samples) for f in rounds.figures] == [
        (1.0, [3.0, 5.0]), (2.0, [4.0, 6.0]), (None, []), (None, []),
    ]  # fmt: skip
    assert rounds.floors == {"work": "one"}


def test_who_goes_wrong_is_left_out_and_the_others_go_on(rounds: Session) -> None:
    """The reason is kept, and what had been measured before is not."""
    taken: list[str] = []

    def take(contender: Contender) -> list[float | None]:
        taken.append(contender.name)
        if contender is ONE and len(taken) > 2:
            raise BenchmarkError("no luck")
        return [1.0]

    sample_rounds(rounds, ["work"], [ONE, OTHER], take)
    one, other = rounds.figures
    assert (one.left_out, one.failed, one.samples, one.first) == ("no luck", True, [], None)
    assert other.samples == [1.0, 1.0]
    assert taken == ["one", "other", "one", "other", "other"]


def test_a_slope_has_the_sizes_of_its_contender(rounds: Session) -> None:
    """Where suites are slow there are fewer, and fewer rounds; the points are kept."""
    slow = dataclasses.replace(OTHER, slow_tests=True)
    rounds.options = dataclasses.replace(rounds.options, sizes=(1, 2, 3), sizes_of_slow=(1, 2))
    sizes = rounds.options.sizes_for
    slope_rounds(
        rounds,
        "work",
        [ONE, slow],
        lambda _, tests: 5.0 * tests + 100,
        sizes=sizes,
        runs=lambda contender: 1 if contender is slow else 2,
    )
    one, other = rounds.figures
    assert one.samples == [pytest.approx(5.0)] * 2
    assert other.samples == [pytest.approx(5.0)]
    assert [len(points) for points in (one.points[0], other.points[0])] == [3, 2]


def test_parts_of_a_run_that_some_runs_do_not_have_are_nothing_there(rounds: Session) -> None:
    """Parts come in the order in which they were met first."""
    answers = iter([{"a": 9.0}, {"a": 1.0}, {"b": 2.0, "a": 3.0}])
    part_rounds(rounds, ONE, lambda: {"work": next(answers)}, title="work")
    assert [(f.contender, f.samples) for f in rounds.figures] == [
        ("a", [1.0, 3.0]), ("b", [0.0, 2.0]),
    ]  # fmt: skip


def test_parts_of_what_goes_wrong_are_left_out(rounds: Session) -> None:
    """There is a figure that says why."""

    def take() -> dict[str, dict[str, float]]:
        raise BenchmarkError("no luck")

    part_rounds(rounds, ONE, take, title="work")
    [figure] = rounds.figures
    assert (figure.contender, figure.left_out, figure.failed) == ("one", "no luck", True)


def test_what_is_about_processes_is_not_measured_for_containers_only(session: Session) -> None:
    """Nothing is run, and no figure made."""
    session.options = dataclasses.replace(SMALLEST, backends=("container",))
    measure_migrations(session)
    assert session.figures == []
