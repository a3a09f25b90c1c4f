"""Packs of directories, unpacked by a process of the warden's alone or with a fork of it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cleanroom_runtime._warden import _children, _pack
from cleanroom_runtime._warden._children import Child
from cleanroom_runtime._warden._journal import Journal

UNPACK = """
import sys
from cleanroom_runtime._warden._pack import unpack

try:
    unpack(sys.argv[1], sys.argv[2], with_a_fork=sys.argv[3] == "fork")
except OSError as exc:
    print(exc.strerror)
"""


PREPARE = """
import os, sys
from cleanroom_runtime._warden._prepare import prepare

forks = []
sys.addaudithook(lambda event, _: forks.append(event) if event == "os.fork" else None)
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
prepare([sys.argv[1], sys.argv[2]], [], [], int(sys.argv[3]))
print(len(os.sched_getaffinity(0)), len(forks))
"""


def unpack(pack: Path, directory: Path, how: str) -> str:
    """Unpack in a process that has one thread, and return what went wrong."""
    command = [sys.executable, "-W", "error", "-c", UNPACK, str(pack), str(directory), how]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A pack of many files of different sizes, and of folders and links."""
    made = tmp_path / "made"
    for number in range(50):
        file = made / f"{number % 3}" / f"{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([number]) * number * 1000)
        file.chmod(0o600 + number % 2 * 0o40)
    (made / "link").symlink_to("2/5")
    _pack.pack(str(made), str(tmp_path / "pack"))
    return tmp_path / "pack"


def listed(directory: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(directory)): (path.stat().st_mode, path.read_bytes()) for path in files
    }


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_a_directory_is_the_same_again(packed: Path, how: str) -> None:
    """Files, modes, folders and links are those that were packed."""
    target = packed.with_name("target")
    assert unpack(packed, target, how) == ""
    assert listed(target) == listed(packed.with_name("made"))
    assert (target / "link").is_symlink()


@pytest.mark.parametrize("how", ["alone", "fork"])
@pytest.mark.parametrize("half", [0, 1])
def test_a_file_that_cannot_be_made(packed: Path, how: str, half: int) -> None:
    """It is an error that says why, whichever process was to make the file."""
    content = packed.read_bytes()
    # The list has one name twice now.
    listing, rest = content.split(b"\n", 1)
    names = [b'"0/48"', b'"1/49"']
    other = [b'"0/45"', b'"1/46"']
    assert names[half] in rest
    packed.write_bytes(listing + b"\n" + rest.replace(names[half], other[half], 1))
    assert unpack(packed, packed.with_name("target"), how) == "File exists"


@pytest.mark.skipif(sys.platform != "linux", reason="processors can be taken away on Linux only")
@pytest.mark.parametrize("others", [0, 1])
def test_a_processor_is_left_to_each_of_the_others(packed: Path, others: int) -> None:
    """A second process helps where it has a processor that no other start needs."""
    command = [sys.executable, "-c", PREPARE, str(packed), str(packed.with_name("to")), str(others)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    processors, forks = map(int, result.stdout.split())
    assert forks == (processors >= 2 + others)


def test_who_is_being_started_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was started just now counts; one that runs for longer, or has ended, does not."""
    found: list[int] = []
    now = time.time()
    since = {"old": now - 60, "ended": now + 60, "new": now + 60, "last": now}

    def spawn(request: dict[str, Any], _: Journal, others: int) -> Child:
        found.append(others)
        child = Child(0, request, since[request["id"]])
        child.exit_code = 0 if request["id"] == "ended" else None
        return child

    monkeypatch.setattr(_children, "_spawn", spawn)
    children = _children.Children(Journal(str(tmp_path / "journal")))
    for name in since:
        request = {"id": name, "directories": [], "stop_signal": "SIGTERM", "stop_timeout": 1}
        children.spawn(request)
    assert found == [0, 0, 0, 1]
