"""Several services at once, and the suite of the shop."""

from __future__ import annotations

import dataclasses
import os
from functools import partial

from benchmarks._contenders import IMAGE, REDIS_IMAGE, Contender, missing_image
from benchmarks._machine import ROOT
from benchmarks._marks import Mark
from benchmarks._rounds import sample_rounds
from benchmarks._session import Session

START = "Several services started by the API, until all answer"
STOP = "Several services stopped by the API"
END = "Several services: from the call that stops them until the process has ended"
SHOP = "The suite of examples/shop, whole pytest process"

SHOP_IMAGE = os.environ.get("CLEANROOM_TEST_SHOP_IMAGE", "cleanroom-test/shop:1")
SHOP_TESTS = 24

_NONE = Contender(
    name="no service", environment="services", variables={"CLEANROOM_BACKEND": "process"}
)
_STORES = ("postgres", "redis")
_APIS = ("http", "web")
"""The least that serves HTTP, which is in Python, and an API on the shop's framework and server."""
_ALONE = {name: dataclasses.replace(_NONE, name=f"{name} alone") for name in (*_STORES, *_APIS)}
_ALL = {api: dataclasses.replace(_NONE, name=f"{', '.join(_STORES)} and {api}") for api in _APIS}


def measure_together(session: Session) -> None:
    """Time start and stop of three services at once, and of each alone, as processes.

    Twice: the third is an HTTP server that starts as fast as one in Python can, or an API.
    """
    if "process" not in session.options.backends:
        return
    names = {contender.name: [service] for service, contender in _ALONE.items()}
    names |= {contender.name: [*_STORES, api] for api, contender in _ALL.items()}
    names[_NONE.name] = []

    def take(contender: Contender) -> list[float | None]:
        services = names[contender.name]
        run, said = session.run_script(contender, "start_together.py", "together", *services)
        ended = run.ended - said["stop called at"]
        return [seconds * 1000 for seconds in (said["started"], said["stopped"], ended)]

    contenders = [_NONE, *_ALONE.values(), *_ALL.values()]
    sample_rounds(session, [START, STOP, END], contenders, take)
    for api, contender in _ALL.items():
        alone = tuple(_ALONE[name].name for name in (*_STORES, api))
        session.marks += [
            Mark(START, contender.name, 1.1, alone),
            Mark(STOP, contender.name, 50),
            Mark(END, contender.name, 50, (_NONE.name,), over=True),
        ]


def measure_shop(session: Session) -> None:
    """Time the whole suite of the shop, on each backend, without workers and with some."""
    contenders = [
        _shop(backend, workers)
        for backend in session.options.backends
        for workers in session.options.shop_workers
    ]
    folder = ROOT / "examples" / "shop"

    def take(contender: Contender) -> list[float | None]:
        cache = f"shop {contender.name}"
        return [session.run_suite(contender, folder, SHOP_TESTS, cache).seconds * 1000]

    runs = session.options.fewer_runs
    sample_rounds(session, [SHOP], contenders, take, runs=runs, warm_up=1)


def _shop(backend: str, workers: int) -> Contender:
    given = ("-n", str(workers)) if workers else ()
    contender = dataclasses.replace(
        _NONE,
        name=" ".join(("cleanroom,", backend, *given)),
        arguments=("-p", "no:cacheprovider", *given),
    )
    if backend == "process":
        return contender
    images = {
        "SHOP_POSTGRES_IMAGE": IMAGE,
        "SHOP_REDIS_IMAGE": REDIS_IMAGE,
        "SHOP_IMAGE": SHOP_IMAGE,
    }
    return dataclasses.replace(
        contender,
        variables={"CLEANROOM_BACKEND": "container", **images},
        missing=partial(missing_image, SHOP_IMAGE),
    )
