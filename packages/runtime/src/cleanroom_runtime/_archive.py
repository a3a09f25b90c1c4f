"""Files on their way into a container and out of it, in tar archives."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
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

    Raises:
        FileError: It has what must not be written, such as a device or a link that leads out.
        OSError: It cannot be written.
    """
    with safe_tarfile.open(fileobj=io.BytesIO(content)) as tar:
        names = tar.getnames()
        try:
            tar.extractall(folder, filter="data")
        except safe_tarfile.FilterError as exc:
            raise FileError(str(exc)) from exc
    return folder / names[0]


def _owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
