"""Files on their way into a container and out of it, in tar archives."""

from __future__ import annotations

import errno
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING or hasattr(tarfile, "data_filter"):
    safe_tarfile = tarfile
else:  # Python before 3.11.4 extracts what leads out of the folder
    from backports import tarfile as safe_tarfile


class FileError(Exception):
    """A file cannot be copied; the message says which, and why."""


def archive(files: Mapping[str, bytes | Path]) -> bytes:
    """Return an archive for the root of a container.

    Args:
        files: Path inside to content, or to the local file or folder to copy.

    Raises:
        FileError: A local file cannot be read.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            name = path.lstrip("/")
            if isinstance(content, bytes):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode, entry.mtime = len(content), 0o644, int(time.time())
                tar.addfile(entry, io.BytesIO(content))
                continue
            try:
                tar.add(content.resolve(), name, filter=_owned_by_root)
            except OSError as exc:
                raise FileError(f"{content} cannot be read: {exc.strerror or exc}") from exc
    return buffer.getvalue()


def link_in(content: bytes) -> str | None:
    """Return where the link leads that an archive has, if it has one instead of a file."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        first = tar.next()
        return first.linkname if first is not None and first.issym() else None


def file_in(content: bytes) -> bytes:
    """Return the content of the one file in an archive.

    Raises:
        FileError: It has a folder, or no regular file.
    """
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        first = tar.next()
        reader = tar.extractfile(first) if first is not None and first.isfile() else None
        if reader is None:
            folder = first is not None and first.isdir()
            raise FileError("it is a folder" if folder else "it is no regular file")
        return reader.read()


def unpack(content: bytes, folder: Path) -> Path:
    """Write what an archive has into a local folder, and return its path there.

    Symbolic links are made as they are, wherever they lead, and nothing is written through one.
    Devices are left out. A folder that is there already is added to. Where it fails, nothing stays
    of the copy.

    Raises:
        FileError: It has no file and no folder, or what must not be written.
        OSError: It cannot be written.
    """
    with (
        tempfile.TemporaryDirectory(prefix=".copy-", dir=folder) as place,
        safe_tarfile.open(fileobj=io.BytesIO(content)) as tar,
    ):
        entries = {PurePosixPath(entry.name): entry for entry in tar}
        for path in entries:
            if path.is_absolute() or ".." in path.parts:
                raise FileError(f"its entry {str(path)!r} leads out of it")
        led = {path: _led_to(entry, entries) for path, entry in entries.items()}
        links = {path: target for path, target in led.items() if target is not None}
        kept = [
            entry
            for path, entry in entries.items()
            if path not in links and (entry.isfile() or entry.isdir() or entry.islnk())
        ]
        if not kept and not links:
            raise FileError("it is no file and no folder")
        for path in entries:
            if not entries[path].isdir() and _is_folder(folder / path):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / path))
        try:
            tar.extractall(place, kept, filter="data")
        except safe_tarfile.FilterError as exc:
            raise FileError(str(exc)) from exc
        _make_links(Path(place), links)
        name = next(iter(entries)).parts[:1]  # none, where it is what a folder has
        _settle(Path(place, *name), folder.joinpath(*name))
    return folder.joinpath(*name)


def _led_to(entry: tarfile.TarInfo, entries: Mapping[PurePosixPath, tarfile.TarInfo]) -> str | None:
    """Return where an entry leads that is a symbolic link, or another name of one."""
    if entry.islnk():
        entry = entries.get(PurePosixPath(entry.linkname), entry)
    return entry.linkname if entry.issym() else None


def _make_links(place: Path, links: Mapping[PurePosixPath, str]) -> None:
    """Make symbolic links last of all: what would be written through one finds a folder there."""
    for path in links:
        place.joinpath(path).parent.mkdir(parents=True, exist_ok=True)
    for path, target in links.items():
        place.joinpath(path).symlink_to(target)


def _settle(copy: Path, target: Path) -> None:
    """Move a copy to its place; what is in a folder, into the folder that is there already."""
    if not _is_folder(copy):
        copy.replace(target)
    elif _is_folder(target):
        for each in list(copy.iterdir()):
            _settle(each, target / each.name)
    else:
        target.unlink(missing_ok=True)
        copy.replace(target)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
