"""What the tests of the command share: ways to run it, projects and distributions to run it on."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from cleanroom import discovery
from cleanroom_cli import _backends
from cleanroom_cli.__main__ import main


class Said(NamedTuple):
    """What a command wrote, and its exit code."""

    code: int
    out: str
    err: str


Cli = Callable[..., Said]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command in this process."""

    def run(*arguments: str) -> Said:
        _backends.engine.cache_clear()
        capfd.readouterr()
        code = main(arguments)
        return Said(code, *capfd.readouterr())

    return run


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which nothing is declared; services are processes."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CLEANROOM_BACKEND", "process")
    return folder


@pytest.fixture
def declare(project: Path) -> Callable[[str], None]:
    """Declares services in the current folder."""

    def declare(text: str) -> None:
        (project / "pyproject.toml").write_text(textwrap.dedent(text))

    return declare


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No container engine answers."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nobody/listens/here.sock")


Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Makes distributions that this process finds."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    known = set(sys.modules)

    def install(
        name: str,
        *,
        source: str = "",
        plugins: Mapping[str, str] | None = None,
        hooks: Mapping[str, str] | None = None,
    ) -> None:
        module = name.replace("-", "_")
        info = site / f"{module}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        lines: list[str] = []
        for group, points in {"plugins": plugins or {}, "hooks": hooks or {}}.items():
            lines += [f"[cleanroom.{group}]", *(f"{key} = {points[key]}" for key in points)]
        (info / "entry_points.txt").write_text("\n".join(lines))
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        discovery.refresh()

    discovery.refresh()
    yield install
    discovery.refresh()
    for name in set(sys.modules) - known:
        if (site / f"{name}.py").exists():
            del sys.modules[name]


Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def spawn(project: Path) -> Iterator[Spawn]:
    """Starts the command as a process of its own, in the current folder."""
    started: list[subprocess.Popen[str]] = []

    def spawn(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-m", "cleanroom_cli", *arguments]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield spawn
    for process in started:
        with process:
            process.kill()


def on_terminal(arguments: Sequence[str], columns: int = 80) -> tuple[int, str]:
    """Run the command on a terminal of this width; return its exit code and what it showed."""
    import fcntl
    import pty
    import struct
    import termios

    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": str(columns)}
    process = subprocess.Popen(
        [sys.executable, "-m", "cleanroom_cli", *arguments],
        stdin=far,
        stdout=far,
        stderr=far,
        env={**os.environ, **variables},
    )
    os.close(far)
    shown = b""
    try:
        while chunk := os.read(near, 65536):
            shown += chunk
    except OSError:  # the other end has closed
        pass
    os.close(near)
    return process.wait(), click.unstyle(shown.decode()).replace("\r\n", "\n")


@pytest.fixture
def terminal() -> Callable[..., tuple[int, str]]:
    """Runs the command on a terminal."""
    return on_terminal
