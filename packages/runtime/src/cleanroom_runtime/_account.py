"""Running programs that refuse to be run by root, such as PostgreSQL.

Where this process is root, the program runs in a user namespace, in which root's files belong to
an ordinary user: nothing has to change hands. Where the kernel or a container's profile refuses
namespaces, it runs as another user, from a copy that user can read if need be.
"""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from cleanroom import ProcessError
from cleanroom_runtime._specs import LocalServer

# Once it is somebody else it may reach nothing of Python's any more, so there is nothing to import.
_SWITCH = """
import os, sys
uid, gid, *argv = sys.argv[1:]
found = [os.path.join(folder, argv[0]) for folder in os.get_exec_path()]
program = next(filter(os.path.isfile, found), argv[0]) if "/" not in argv[0] else argv[0]
os.setgroups([])
os.setgid(int(gid))
os.setuid(int(uid))
os.execve(program, argv, {**os.environ, "HOME": "/"})
"""


class Account(NamedTuple):
    """As whom a program runs.

    Attributes:
        kind: `same` as this process; `namespace`: this process's user under another name;
            `other`: another user.
        uid: That user's id, as files on disk show it.
        gid: That user's group.
        prefix: Put before the program's own command.
    """

    kind: Literal["same", "namespace", "other"]
    uid: int
    gid: int
    prefix: tuple[str, ...] = ()

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs `argv` as this account."""
        return [*self.prefix, *argv]

    def reaches(self, path: Path) -> bool:
        """Whether this account can read and enter `path`, judged by modes and owners."""
        path = path.resolve()
        return all(self._may(folder) for folder in (path, *path.parents))

    def _may(self, path: Path) -> bool:
        status = path.stat()
        if self.kind == "same":
            return os.access(path, os.X_OK)
        if status.st_uid == self.uid:
            return bool(status.st_mode & 0o100)
        if status.st_gid == self.gid:
            return bool(status.st_mode & 0o010)
        return bool(status.st_mode & 0o001)


def account_for(*, refuses_root: bool) -> Account:
    """Choose the account for a program.

    Raises:
        ProcessError: It refuses root, and there is neither a namespace nor another user.
    """
    same = Account("same", os.getuid(), os.getgid())
    if not refuses_root or os.getuid() != 0:
        return same
    unshare = _unshare()
    if unshare is not None:
        user = _ordinary_user()
        uid, gid = (user.pw_uid, user.pw_gid) if user else (1000, 1000)
        # --ipc: shared memory of a killed server goes with its namespace.
        namespace = (
            unshare, "--user", "--ipc", f"--map-user={uid}", f"--map-group={gid}", "--",
        )  # fmt: skip
        return Account("namespace", 0, 0, namespace)
    other = _ordinary_user()
    if other is None:
        raise ProcessError(
            "the program refuses to run as root, this system allows no user namespace "
            "('unshare --user' fails), and there is no other user to run it as",
            hint="run the tests as an ordinary user, or add one named 'postgres' or 'nobody'",
        )
    prefix = (sys.executable, "-I", "-S", "-c", _SWITCH, str(other.pw_uid), str(other.pw_gid))
    return Account("other", other.pw_uid, other.pw_gid, prefix)


@functools.cache
def _unshare() -> str | None:
    """The program that makes user namespaces, where it is there and allowed to."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    test = [unshare, "--user", "--ipc", "--map-user=1000", "--map-group=1000", "--", "true"]
    return (
        unshare if subprocess.run(test, capture_output=True, check=False).returncode == 0 else None
    )


def _ordinary_user() -> pwd.struct_passwd | None:
    """A user that exists everywhere, preferably the one meant for it."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return next((user for user in pwd.getpwall() if user.pw_uid != 0), None)


def readable_executable(server: LocalServer, account: Account, folder: Path) -> Path:
    """Return the server's executable where the account can run it, copied to `folder` if need be.

    Raises:
        ProcessError: The account cannot reach it and it cannot be copied.
    """
    if account.reaches(server.executable):
        return server.executable
    if not server.parts:
        raise ProcessError(
            f"{server.executable} refuses to run as root, and the user it has to run as cannot "
            "reach it",
            hint="install the server in a folder that others can read, such as below /usr, or "
            "run the tests as an ordinary user",
        )
    base = server.parts[0].parent
    for part in server.parts:
        shutil.copytree(part, folder / part.name, symlinks=True, dirs_exist_ok=True)
    _hand_over(folder, account)
    return folder / server.executable.relative_to(base)


def _hand_over(folder: Path, account: Account) -> None:
    """Give a copy that this process has just made to the account."""
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
