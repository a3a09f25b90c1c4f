"""Archives out of containers, which may hold anything, written into local folders."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from cleanroom_runtime._archive import FileError, unpack

FOLDER, FILE, LINK = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE
SAME, DEVICE, PIPE = tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE


def made(*entries: tuple[str, bytes, str]) -> bytes:
    """Return an archive of entries: name, type, and where it leads or what it has."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, text in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = kind, 0o755
            if kind == FILE:
                entry.size = len(text)
            else:
                entry.linkname = text
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_what_arrives(tmp_path: Path) -> None:
    """Files, folders and links arrive, those that lead out as well; devices and pipes do not."""
    content = made(
        ("etc", FOLDER, ""),
        ("etc/out", LINK, "../../x"),
        ("etc/far", LINK, "/bin/sh"),
        ("etc/far-too", SAME, "etc/far"),
        ("etc/run", FILE, "text"),
        ("etc/run-too", SAME, "etc/run"),
        ("etc/zero", DEVICE, ""),
        ("etc/pipe", PIPE, ""),
    )
    copy = unpack(content, tmp_path)
    assert copy == tmp_path / "etc"
    found = {each.name: each for each in copy.iterdir()}
    links = {name: str(found[name].readlink()) for name in found if found[name].is_symlink()}
    assert links == {"out": "../../x", "far": "/bin/sh", "far-too": "/bin/sh"}
    assert sorted(found.keys() - links) == ["run", "run-too"]
    assert (copy / "run-too").read_text() == "text"
    assert (copy / "run").stat().st_mode & 0o777 == 0o755
    assert list(tmp_path.iterdir()) == [copy]


def test_a_copy_that_is_there_already(tmp_path: Path) -> None:
    """It is added to, and a link in it is replaced, not followed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    into = tmp_path / "into"
    into.mkdir()
    unpack(made(("a", FOLDER, ""), ("a/old", FILE, "old"), ("a/b", LINK, str(outside))), into)
    unpack(made(("a", FOLDER, ""), ("a/b", FOLDER, ""), ("a/b/c", FILE, "new")), into)
    assert (into / "a/old").read_text() == "old"
    assert (into / "a/b/c").read_text() == "new"
    assert list(outside.iterdir()) == []
    assert unpack(made((".", FOLDER, ""), ("./d", FILE, "")), into) == into
    assert (into / "d").exists()


def test_a_folder_in_the_way_of_a_file(tmp_path: Path) -> None:
    """Nothing is added to a copy that is there already where a file cannot come to its place."""
    tmp_path.joinpath("a", "z").mkdir(parents=True)
    content = made(("a", FOLDER, ""), ("a/b", FILE, "new"), ("a/z", FILE, "new"))
    with pytest.raises(IsADirectoryError, match="a/z"):
        unpack(content, tmp_path)
    assert [each.name for each in tmp_path.rglob("*")] == ["a", "z"]


@pytest.mark.parametrize(
    "entries",
    [
        [("../evil", FILE, "x")],
        [("a", FOLDER, ""), ("a/../../evil", FILE, "x")],
        [("{outside}/evil", FILE, "x")],
        [("{outside}/evil", LINK, "x")],
        [("a", LINK, "{outside}"), ("a/evil", FILE, "x")],
        [("a", LINK, "{outside}"), ("a/evil", LINK, "x")],
        [("a", LINK, "."), ("a/b", LINK, "../.."), ("a/b/evil", FILE, "x")],
        [("a", SAME, "../outside/file")],
        [("a", FILE, "good"), ("b", SAME, "/etc/passwd")],
        [("null", DEVICE, "")],
        [],
    ],
)
def test_what_is_refused(tmp_path: Path, entries: list[tuple[str, bytes, str]]) -> None:
    """Nothing is written outside, and nothing stays of an archive that would."""
    outside = tmp_path / "outside"
    into = tmp_path / "into"
    for folder in (outside, into):
        folder.mkdir()
    outside.joinpath("file").touch()
    filled = [
        (name.format(outside=outside), kind, text.format(outside=outside))
        for name, kind, text in entries
    ]
    with pytest.raises((FileError, OSError)):
        unpack(made(*filled), into)
    assert [each.name for each in outside.iterdir()] == ["file"]
    assert list(into.iterdir()) == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["into", "outside"]
