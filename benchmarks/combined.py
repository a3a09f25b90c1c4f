"""Redis, several services at once, and the suite of the shop."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks._contenders import Contender, missing_image
from benchmarks._figures import Mark
from benchmarks._machine import ROOT
from benchmarks._rounds import add_sample, figures_of, take_rounds
from benchmarks._session import Session
from benchmarks._timing import slope
from benchmarks.postgres_contenders import IMAGE

TOGETHER = "Several services started by the API, until all answer"
FIRST_PING = "Redis: start by the API, import to first PING"
STOP_REDIS = "Redis: stop by the API"
NEXT_REDIS = "Redis: the next isolated test, over one that does nothing"
SHOP = "The suite of examples/shop, whole pytest process"

REDIS_IMAGE = os.environ.get("CLEANROOM_TEST_REDIS_IMAGE", "cleanroom-test/redis:7")
SHOP_IMAGE = os.environ.get("CLEANROOM_TEST_SHOP_IMAGE", "cleanroom-test/shop:1")
SHOP_TESTS = 24

_SIZES = (1, 101, 201)
_SUITE = """\
import pytest


@pytest.mark.parametrize("n", range({tests}))
def test_nothing(n):
    pass
"""
_REDIS_SUITE = """\
import pytest


@pytest.mark.parametrize("n", range({tests}))
def test_increments(redis_db, n):
    assert redis_db.client().incr("key") == 1
"""


def _contender(name: str, image: str | None = None, **variables: str) -> Contender:
    backend = "container" if image else "process"
    return Contender(
        name=name,
        environment="services",
        conftest=lambda tables: "",
        variables={"CLEANROOM_BACKEND": backend, **variables},
        missing=partial(missing_image, image) if image else lambda: None,
    )


_ALONE = {name: _contender(f"{name} alone") for name in ("postgres", "redis", "http")}
_ALL = _contender("the three together")
_REDIS = {
    "process": _contender("cleanroom, process"),
    "container": _contender("cleanroom, container", REDIS_IMAGE, BENCH_REDIS_IMAGE=REDIS_IMAGE),
}


def measure_together(session: Session) -> None:
    """Time the start of three services at once, and of each alone, as processes."""
    names = {contender.name: [service] for service, contender in _ALONE.items()}
    names[_ALL.name] = list(_ALONE)
    contenders = [*_ALONE.values(), _ALL]
    figures = figures_of(session, TOGETHER, contenders)

    def take(number: int, contender: Contender) -> None:
        services = names[contender.name]
        result = session.run_script(contender, "start_together.py", "together", *services)
        seconds = json.loads(result.output.splitlines()[-1])["started"]
        add_sample(figures[contender.name], number, seconds)

    take_rounds(session, session.options.runs + 2, contenders, take, [figures])


def measure_redis_start(session: Session, backends: Sequence[str]) -> None:
    """Time start and stop of Redis inside a process that does nothing else."""
    contenders = [_REDIS[backend] for backend in backends]
    pings = figures_of(session, FIRST_PING, contenders)
    stops = figures_of(session, STOP_REDIS, contenders)

    def take(number: int, contender: Contender) -> None:
        cache = f"redis {contender.name}"
        result = session.run_script(contender, "start_stop_redis.py", cache)
        seconds = json.loads(result.output.splitlines()[-1])
        add_sample(pings[contender.name], number, seconds["first ping"])
        add_sample(stops[contender.name], number, seconds["stop"])

    take_rounds(session, session.options.runs + 2, contenders, take, [pings, stops])


def measure_redis_next(session: Session) -> None:
    """Take the slope over suites with few and many tests, less that of tests that do nothing."""
    contender = _REDIS["process"]
    figures = figures_of(session, NEXT_REDIS, [contender])
    suites = {
        (kind, tests): _write_suite(session.folder / f"{kind}-{tests}", text, tests)
        for kind, text in (("redis", _REDIS_SUITE), ("nothing", _SUITE))
        for tests in _SIZES
    }

    def take(number: int, contender: Contender) -> None:
        def seconds(kind: str, tests: int) -> float:
            suite = suites[kind, tests]
            return session.run_suite(contender, suite, tests, "next redis").seconds

        points = {
            kind: [(tests, seconds(kind, tests) * 1000) for tests in _SIZES]
            for kind in ("nothing", "redis")
        }
        if number:  # the first fills the caches
            figure = figures[contender.name]
            figure.samples.append(slope(points["redis"]) - slope(points["nothing"]))
            figure.points.extend(points.values())

    take_rounds(session, session.options.runs + 1, [contender], take, [figures])


def measure_shop(session: Session, backends: Sequence[str]) -> None:
    """Time the whole suite of the shop, on each backend, with one, two and four workers."""
    options = {
        "process": {"image": None, "variables": {}},
        "container": {
            "image": SHOP_IMAGE,
            "variables": {
                "SHOP_POSTGRES_IMAGE": IMAGE,
                "SHOP_REDIS_IMAGE": REDIS_IMAGE,
                "SHOP_IMAGE": SHOP_IMAGE,
            },
        },
    }
    workers: dict[str, tuple[str, ...]] = {"": (), "-n 1": ("-n", "1")}
    workers |= {"-n 2": ("-n", "2"), "-n 4": ("-n", "4")}
    arguments: dict[str, tuple[str, ...]] = {}
    contenders: list[Contender] = []
    for backend in backends:
        image, variables = options[backend]["image"], options[backend]["variables"]
        for label, given in workers.items():
            name = f"cleanroom, {backend} {label}".strip()
            contenders.append(_contender(name, image, **variables))
            arguments[name] = given
    figures = figures_of(session, SHOP, contenders)

    def take(number: int, contender: Contender) -> None:
        result = session.run_suite(
            contender, ROOT / "examples" / "shop", SHOP_TESTS, f"shop {contender.name}",
            "-p", "no:cacheprovider", *arguments[contender.name],
        )  # fmt: skip
        add_sample(figures[contender.name], number, result.seconds)

    take_rounds(session, session.options.runs + 2, contenders, take, [figures])


def marks() -> list[Mark]:
    """Return what is held against something."""
    return [
        Mark(TOGETHER, _ALL.name, 1.15, relative_to=_ALONE["postgres"].name),
        Mark(NEXT_REDIS, _REDIS["process"].name, 1.0),
    ]


def floor(work: str) -> str | None:
    """Return the name of the contender that others are shown as multiples of."""
    return _ALONE["postgres"].name if work == TOGETHER else None


def _write_suite(folder: Path, text: str, tests: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\naddopts = "-p no:cacheprovider"\n'
    )
    (folder / "test_suite.py").write_text(text.format(tests=tests))
    return folder
