"""The process backend: a server as a child of the warden, on 127.0.0.1 and a unix socket."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cleanroom import InternalError, ProcessError
from cleanroom_runtime._account import Account, account_for, readable_executable
from cleanroom_runtime._folders import memory_folder, run_root
from cleanroom_runtime._run import Run, WardenRefusalError, current_run
from cleanroom_runtime._specs import Endpoint, LocalServer, ProcessSpec, Workspace

HOST = "127.0.0.1"

_PORT_TAKEN = "address already in use|could not bind|port is in use"
_KNOCK_TIMEOUT = 0.2
_RESET = struct.pack("ii", 1, 0)
MEMORY_WANTED = 512 * 1024 * 1024
"""Bytes that must be free in memory for the data of a service to lie there."""


class Place(NamedTuple):
    """Where and as whom one server process will run."""

    server: LocalServer
    account: Account
    workspace: Workspace

    @property
    def log(self) -> Path:
        """The file with the process's output."""
        return self.workspace.directory / "log"

    @property
    def endpoint(self) -> Endpoint:
        """Where the server will be reached."""
        facts = {"executable": str(self.server.executable), "log": str(self.log)}
        return Endpoint(HOST, self.workspace.port, facts, self.workspace.directory)


def find_place(run: Run, service_id: str, server: LocalServer, *, refuses_root: bool) -> Place:
    """Choose account, folders and port for a server. Makes nothing but a copy, if one is needed.

    Raises:
        ProcessError: There is no account that could run it.
    """
    account = account_for(refuses_root=refuses_root)
    workspace = _workspace(run, service_id, account)
    if not account.reaches(server.executable):
        copies = copies_folder(workspace)
        run.request("register", directory=str(copies))
        copies.mkdir(mode=0o700)
        executable = readable_executable(server, account, copies)
        server = LocalServer(executable, server.version, server.source)
    return Place(server, account, workspace)


def copies_folder(workspace: Workspace) -> Path:
    """Return where a server's program is copied to, if its account cannot reach the original."""
    return Path(f"{workspace.directory}-bin")


def _workspace(run: Run, service_id: str, account: Account) -> Workspace:
    directory = None
    if account.kind == "other":  # which cannot pass through the run's own directory
        directory = run_root(suits=account.reaches).parent / _flat_name(service_id)
    directory, data, port = whereabouts(run, service_id, directory)
    return Workspace(directory, data, port, account.prefix, (account.uid, account.gid))


def whereabouts(run: Run, service_id: str, directory: Path | None = None) -> tuple[Path, Path, int]:
    """Choose directory, folder for data and port of a process. Makes nothing.

    Args:
        run: The run.
        service_id: The service's id.
        directory: Where it is to be, if not in the run's own.
    """
    directory = directory or run.address.directory / service_id.partition("-")[2]
    memory = memory_folder(MEMORY_WANTED)
    beside = Path(f"{directory}-data")
    data = memory / f"{_flat_name(service_id)}-data" if memory else beside
    return directory, data, free_port()


def _flat_name(service_id: str) -> str:
    return f"cleanroom-{os.getuid()}-{service_id}"


def launch(run: Run, service_id: str, place: Place, spec: ProcessSpec) -> Callable[[], str]:
    """Start a server process. Returns at once; what it returns waits for the pid.

    Raises:
        ProcessError: It could not be executed (raised by what is returned).
    """
    answer = run.begin(
        "spawn",
        id=service_id,
        **description(place, spec),
        env={**os.environ, **spec.env},
        files={str(path): content for path, content in spec.files.items()},
    )

    def confirm() -> str:
        try:
            return str(answer()["pid"])
        except WardenRefusalError as exc:
            raise ProcessError(
                f"{place.server.executable} could not be executed: {exc.message}",
                hint=f"it was found as: {place.server.source}",
            ) from exc

    return confirm


def description(place: Place, spec: ProcessSpec) -> dict[str, Any]:
    """Describe a server process to the warden, but for its id, environment and files."""
    return {
        "argv": place.account.command(spec.argv),
        "copy": [str(path) for path in spec.copy or ()],
        "owner": [place.account.uid, place.account.gid] if place.account.kind == "other" else [],
        "cwd": str(spec.cwd or place.workspace.directory),
        "log": str(place.log),
        "directories": [str(place.workspace.directory), str(place.workspace.data)],
        "stop_signal": spec.stop_signal,
        "stop_timeout": spec.stop_timeout,
    }


def run_program(
    workspace: Workspace,
    argv: Sequence[str],
    *,
    text: str = "",
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> tuple[int, str]:
    """Run a program that prepares a service, as the user that the service will run as.

    It belongs to the run as the service does: should this process die, it ends with it.

    Args:
        workspace: The service's workspace.
        argv: The program and its arguments.
        text: What it reads from its standard input.
        env: Its environment; that of this process when not given.
        timeout: Seconds it may take.

    Returns:
        Its exit code, as a shell counts, and what it wrote.

    Raises:
        ProcessError: It could not be executed.
        TimeoutError: It took too long and was killed.
    """
    run = current_run()
    program_id = run.new_service_id()
    folder = run.address.directory
    source, output = folder / f"{program_id}.in", folder / f"{program_id}.out"
    try:
        run.request(
            "spawn",
            id=program_id,
            argv=[*workspace.prefix, *argv],
            env=dict(os.environ if env is None else env),
            cwd="/",
            input=str(source),
            log=str(output),
            directories=[],
            files={str(source): text},
            stop_signal="SIGTERM",
            stop_timeout=3.0,
            time_limit=timeout,
            gentle=True,
        )
    except WardenRefusalError as exc:
        raise ProcessError(f"{argv[0]} could not be executed: {exc.message}") from exc
    try:
        ended = run.request("wait", id=program_id)
    except BaseException:
        with contextlib.suppress(InternalError):
            run.request("stop", id=program_id)
        raise
    if ended["late"]:
        raise TimeoutError(f"{argv[0]} was not done after {timeout:g} s")
    return int(ended["exit_code"]), output.read_text(encoding="utf-8", errors="replace")


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free just now."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether something accepts connections at this port of 127.0.0.1."""
    with contextlib.suppress(OSError), socket.socket() as knocking:
        knocking.settimeout(_KNOCK_TIMEOUT)
        knocking.connect((HOST, port))
        if knocking.getsockname() != (HOST, port):
            return True
        # The system gave us that same port, and we have met ourselves. Closed in the usual way,
        # that would keep the port from the server for a minute.
        knocking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return False


def listens_at(path: Path) -> bool:
    """Whether something accepts connections at this unix socket."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as knocking:
        knocking.settimeout(_KNOCK_TIMEOUT)
        knocking.connect(str(path))
        return True
    return False


def exit_code(run: Run, service_id: str) -> int | None:
    """Return the exit code of a process that has ended, `None` while it runs."""
    status = run.request("status", id=service_id)
    return None if status["running"] else int(status.get("exit_code") or 0)


def port_was_taken(log_tail: str) -> bool:
    """Whether a server gave up because another one had taken its port."""
    return re.search(_PORT_TAKEN, log_tail, re.IGNORECASE) is not None


def log_tail(path: Path, lines: int) -> str:
    """Return the last lines of a process's output; empty when it is gone."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 200 * lines))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def describe_exit(code: int) -> str:
    """Return an exit code in words: `with exit code 1`, `killed by SIGKILL`."""
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
