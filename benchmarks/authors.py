"""For authors of plugins: finding one among many distributions, making one from the template."""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path

from benchmarks._contenders import Contender
from benchmarks._environments import environment_on_top, python_of
from benchmarks._process import child_environment, run
from benchmarks._rounds import part_rounds
from benchmarks._session import Session

DISCOVERY = "Discovery with {number} distributions installed"
NEW = "From `cleanroom new` to a green conformance run"

_OURS = Contender(name="cleanroom", environment="postgres")
_FLOOR = "entry_points() of importlib.metadata"
_NEW = Contender(
    name="cleanroom new",
    environment="plugins",
    variables={"CLEANROOM_BACKEND": "process"},
    missing=lambda: None if shutil.which("memcached") else "there is no memcached on PATH",
)
_ANSWERS = (
    "--service=memcached",
    "--image=memcached:1.6",
    "--port=11211",
    "--server=memcached",
    "--server-arguments=-l 127.0.0.1 -p {port} -u nobody",
    "--readiness=tcp",
)


def measure_discovery(session: Session) -> None:
    """Time how plugins are found, in a process of its own each time."""
    _, alone = session.run_script(_OURS, "discover.py", "discovery")
    own = alone["distributions"]
    for number in sorted({max(own, wanted) for wanted in session.options.distributions}):
        folder = session.folder / f"distributions-{number}"
        _make_distributions(folder, number - own)
        title = DISCOVERY.format(number=number)
        session.floors[title] = _FLOOR
        part_rounds(session, _OURS, partial(_discover, session, title, folder), title=title)


def _discover(session: Session, title: str, folder: Path) -> dict[str, dict[str, float]]:
    paths = {"PYTHONPATH": str(folder)}
    took = {}
    for shown, arguments in {_FLOOR: ("importlib.metadata",), _OURS.name: ()}.items():
        _, said = session.run_script(_OURS, "discover.py", "discovery", *arguments, variables=paths)
        took[shown] = said["seconds"] * 1000
    return {title: took}


def _make_distributions(folder: Path, number: int) -> None:
    for index in range(number):
        info = folder / f"filler_{index}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: filler-{index}\nVersion: 1.0\n", encoding="utf-8"
        )
        if index % 4 == 0:
            (info / "entry_points.txt").write_text(
                f"[console_scripts]\nfiller-{index} = filler_{index}:main\n", encoding="utf-8"
            )


def measure_new(session: Session) -> None:
    """Time each step from the template to a conformance run that passes."""

    def take() -> dict[str, dict[str, float]]:
        place = session.suite_folder("new")
        place.mkdir(parents=True)
        project = place / "cleanroom-plugin-memcached"
        python = python_of(_NEW.environment)
        environment = child_environment(session.cache("new"), _NEW.variables)

        def seconds(*command: str | Path, folder: Path) -> float:
            return run(command, environment=environment, folder=folder).seconds * 1000

        new = (python, "-m", "cleanroom_cli", "new", "--no-input", *_ANSWERS)
        took = {"cleanroom new": seconds(*new, folder=place)}
        began = time.monotonic()
        own = environment_on_top(place / "environment", python, project)
        took["its environment, pip install"] = (time.monotonic() - began) * 1000
        test = (own, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_conformance.py")
        took["its conformance test"] = seconds(*test, folder=project)
        return {NEW: {**took, "in all": sum(took.values())}}

    part_rounds(session, _NEW, take, title=NEW, warm_up=0)
