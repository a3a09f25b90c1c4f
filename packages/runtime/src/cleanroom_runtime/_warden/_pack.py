"""A directory packed into one file, which is read several times as fast as many small ones.

The file begins with a line that tells the length of the list, the length of the whole, and a
checksum (CRC-32) of what follows: the list, in JSON, then the content of the files, one right
behind the other.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import FileIO
    from typing import BinaryIO

    _Entry = tuple[str, int, int, int]

_FIRST_LINE = "cleanroom pack 2 %012d %016d %08x\n"
_LENGTH = len(_FIRST_LINE % (0, 0, 0))
_BLOCK = 1024 * 1024


def pack(directory: str, file: str) -> None:
    """Pack a directory: folders, files and symbolic links, with their modes.

    Raises:
        OSError: It could not be read, or the file not be written.
    """
    folders, files, links = _listed(directory)
    listed = json.dumps([folders, files, links]).encode()
    whole = _LENGTH + len(listed) + sum(size for _, size, _ in files)
    with open(file, "wb") as packed:
        packed.write((_FIRST_LINE % (len(listed), whole, 0)).encode() + listed)
        checksum = zlib.crc32(listed)
        for name, size, _ in files:
            with open(os.path.join(directory, name), "rb") as content:
                for block in _blocks(content, size):
                    packed.write(block)
                    checksum = zlib.crc32(block, checksum)
        packed.seek(0)
        packed.write((_FIRST_LINE % (len(listed), whole, checksum)).encode())


def is_whole(file: str) -> bool:
    """Whether a file is a pack of which nothing is missing. Its content is not read."""
    try:
        with open(file, "rb") as packed:
            _, whole, _ = _first_line(packed)
            return os.fstat(packed.fileno()).st_size == whole
    except (OSError, ValueError):
        return False


def is_sound(file: str) -> bool:
    """Whether a file is a pack that is as it was made. All of it is read."""
    try:
        with open(file, "rb") as packed:
            _, whole, expected = _first_line(packed)
            checksum = 0
            for block in _blocks(packed, whole - _LENGTH):
                checksum = zlib.crc32(block, checksum)
            return checksum == expected and not packed.read(1)
    except (OSError, ValueError):
        return False


def unpack(file: str, directory: str, *, with_a_fork: bool = False) -> None:
    """Make a directory, which does not exist yet, with what is in a pack.

    Args:
        file: The pack.
        directory: What to make.
        with_a_fork: Whether a second process takes half of the files, for a processor that has
            nothing else to do.

    Raises:
        OSError: It could not be read or written.
        ValueError: It is no pack.
    """
    with open(file, "rb", buffering=0) as packed:
        length, _, _ = _first_line(packed)
        folders, files, links = json.loads(packed.read(length))
        os.mkdir(directory, 0o700)
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name, mode in folders:
                os.mkdir(name, mode, dir_fd=root)
            for name, target in links:
                os.symlink(target, name, dir_fd=root)
            position = _LENGTH + length
            entries: list[_Entry] = []
            for name, size, mode in files:
                entries.append((name, mode, position, size))
                position += size
            if with_a_fork:
                _extract_in_two(packed.fileno(), root, entries)
            else:
                _extract(packed.fileno(), root, entries)
        finally:
            os.close(root)


def _extract_in_two(source: int, root: int, entries: Sequence[_Entry]) -> None:
    pid = os.fork()
    if pid == 0:
        code = errno.EIO
        try:
            _extract(source, root, entries[1::2])
            code = 0
        except OSError as exc:
            code = exc.errno or code
        finally:
            os._exit(code)
    try:
        _extract(source, root, entries[::2])
    finally:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        code = code if code > 0 else errno.EINTR  # it was killed
        raise OSError(code, os.strerror(code))


def _extract(source: int, root: int, entries: Sequence[_Entry]) -> None:
    """Make files of a pack below a directory: names, modes, positions in the pack, and sizes."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    for name, mode, position, size in entries:
        target = os.open(name, flags, mode, dir_fd=root)
        try:
            _copy(source, target, position, size)
        finally:
            os.close(target)


def _first_line(packed: BinaryIO | FileIO) -> tuple[int, int, int]:
    """Read the first line: the lengths of the list and of the whole file, and the checksum."""
    line = packed.read(_LENGTH)
    *words, length, whole, checksum = line.decode().split()
    if words != _FIRST_LINE.split()[:3] or len(line) != _LENGTH:
        raise ValueError("it is no pack")
    return int(length), int(whole), int(checksum, 16)


def _listed(
    directory: str,
) -> tuple[list[tuple[str, int]], list[tuple[str, int, int]], list[tuple[str, str]]]:
    """List what is below a directory, each folder before what is in it."""
    folders: list[tuple[str, int]] = []
    files: list[tuple[str, int, int]] = []
    links: list[tuple[str, str]] = []
    for place, below, names in os.walk(directory):
        for name in sorted(below + names):
            path = os.path.join(place, name)
            relative = os.path.relpath(path, directory)
            status = os.lstat(path)
            mode = stat.S_IMODE(status.st_mode)
            if stat.S_ISDIR(status.st_mode):
                folders.append((relative, mode))
            elif stat.S_ISLNK(status.st_mode):
                links.append((relative, os.readlink(path)))
            else:
                files.append((relative, status.st_size, mode))
    return folders, files, links


def _blocks(content: BinaryIO, size: int) -> Iterator[bytes]:
    """Read so many bytes from where a file is."""
    while size:
        block = content.read(min(size, _BLOCK))
        if not block:
            raise OSError(f"{content.name} became shorter while it was read")
        yield block
        size -= len(block)


def _copy(source: int, target: int, position: int, size: int) -> None:
    """Copy a part of one open file to the end of another."""
    while size:
        if sys.platform == "linux":
            done = os.sendfile(target, source, position, size)
        else:
            done = os.write(target, os.pread(source, min(size, _BLOCK), position))
        if not done:
            raise OSError("the pack became shorter while it was read")
        position, size = position + done, size - done
