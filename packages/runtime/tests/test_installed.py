"""Finding the server programs of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from cleanroom_runtime import LocalServer, installed_servers


def program(folder: Path, said: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "server"
    path.write_text(f"#!/bin/sh\n{said}\n")
    path.chmod(0o755)
    return path


def test_a_server_is_found_with_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server on PATH comes first, and each comes once; what it writes tells its version."""
    first = program(tmp_path / "first", 'echo "server/2.14.1 (1)" >&2; exit 1')
    second = program(tmp_path / "second", '[ "$1" = -v ] && echo 3.0')
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "server").symlink_to(first)
    monkeypatch.setenv("PATH", str(first.parent), prepend=":")
    folders = [tmp_path / name for name in ("second", "third", "none")]
    assert list(installed_servers("server", version=["-v"], folders=folders)) == [
        LocalServer(first, "2.14.1", "PATH"),
        LocalServer(second, "3.0", str(second.parent)),
    ]


def test_what_does_not_run_is_left_out(tmp_path: Path) -> None:
    """A broken program is no server; one that does not tell its version has an unknown one."""
    broken = program(tmp_path / "broken", "")
    broken.write_bytes(b"\x7fELF and nothing else")
    closed = program(tmp_path / "closed", "")
    closed.chmod(0o644)
    silent = program(tmp_path / "silent", "exit 0")
    folders = [path.parent for path in (broken, closed, silent)]
    assert list(installed_servers("server", folders=folders)) == [
        LocalServer(silent, "unknown", str(silent.parent))
    ]
