"""What is there without a service being used: in a pytest run, on import; and how much memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks._contenders import Contender
from benchmarks._environments import python_of
from benchmarks._marks import Mark
from benchmarks._process import child_environment, run
from benchmarks._rounds import part_rounds, sample_rounds
from benchmarks._session import Session
from benchmarks._suites import write_idle_suite
from benchmarks.postgres_contenders import PROCESS

IDLE = "Idle: a pytest run that uses none of it, whole process"
THREADS = "Idle: further threads at the end of that run"
CHILDREN = "Idle: further processes at the end of that run"
IMPORT = "Imports, whole process"
MEMORY = "Memory ({kind}) while a PostgreSQL started by the API is in use"

_BARE = Contender(name="bare pytest", environment="bare")
_BLOCKED = Contender(
    name="our plugins installed, -p no:cleanroom",
    environment="plugins",
    arguments=("-p", "no:cleanroom"),
)
_INSTALLED = Contender(name="our plugins installed", environment="plugins")

_STATEMENTS = {
    "python -c pass": ("-c", "pass"),
    "import cleanroom": ("-c", "import cleanroom"),
    "import cleanroom_runtime": ("-c", "import cleanroom_runtime"),
    "import cleanroom_plugin_postgres": ("-c", "import cleanroom_plugin_postgres"),
    "import cleanroom_plugin_redis": ("-c", "import cleanroom_plugin_redis"),
    "import cleanroom_plugin_http": ("-c", "import cleanroom_plugin_http"),
    "cleanroom --help": ("-m", "cleanroom_cli", "--help"),
    "import psycopg": ("-c", "import psycopg"),
}
_TIMES = 3
"""How many times as many runs are taken: what is looked for is small, and each run short."""


def measure_idle(session: Session) -> None:
    """Time pytest runs in which no test uses a service; count threads and processes in them."""
    suite = write_idle_suite(session.suite_folder("idle"))

    def take(contender: Contender) -> list[float | None]:
        result = session.run_suite(contender, suite, 1, f"idle {contender.name}")
        if sys.platform != "linux":
            return [result.seconds * 1000, None, None]
        left = json.loads((suite / "left.json").read_text())
        return [result.seconds * 1000, left["threads"], left["processes"]]

    sample_rounds(
        session,
        [IDLE, THREADS, CHILDREN],
        [_BARE, _BLOCKED, _INSTALLED],
        take,
        runs=session.options.runs * _TIMES,
        floor=_BARE,
    )
    session.set_unit(THREADS, "threads")
    session.set_unit(CHILDREN, "processes")
    session.marks += [
        Mark(work, _INSTALLED.name, limit, (_BARE.name,), over=True)
        for work, limit in ((IDLE, 15), (THREADS, 0), (CHILDREN, 0))
    ]


def measure_imports(session: Session) -> None:
    """Time whole Python processes that only import."""
    contenders = [Contender(name=name, environment="plugins") for name in _STATEMENTS]

    def take(contender: Contender) -> list[float | None]:
        command: list[str | Path] = [python_of(contender.environment), *_STATEMENTS[contender.name]]
        environment = child_environment(session.cache("imports"))
        return [run(command, environment=environment, folder=session.folder).seconds * 1000]

    runs = session.options.runs * _TIMES
    sample_rounds(session, [IMPORT], contenders, take, runs=runs, floor=contenders[0])


def measure_memory(session: Session) -> None:
    """Ask the system what client, warden and server have in memory."""
    if sys.platform != "linux" or "process" not in session.options.backends:
        return

    def take() -> dict[str, dict[str, float]]:
        _, bare = session.run_script(PROCESS, "memory.py", "memory", "bare")
        _, ours = session.run_script(PROCESS, "memory.py", "memory")
        parts = {"python that imports psycopg": bare["client"], **ours}
        return {
            MEMORY.format(kind=kind): {name: of[kind] / 1024 for name, of in parts.items()}
            for kind in ("PSS", "RSS")
        }

    part_rounds(session, PROCESS, take, title=MEMORY.format(kind="PSS"), unit="MB", warm_up=1)
