"""Questions that plugins ask of their services, in `probe`: the same on every backend.

Each returns when the service has given the right answer, and raises, saying why, when it has not.
A client library asks better than any of them, where there is one.
"""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence

from cleanroom import ServiceError, ServiceHandle
from cleanroom_runtime._hiding import secrets_in
from cleanroom_runtime._lifecycle import written_tail
from cleanroom_runtime._spellings import hide_all
from cleanroom_runtime._waits import get, is_listened_on

__all__ = ["ask_command", "ask_http", "ask_log", "ask_tcp"]

_LOG_LINES = 10_000
_SHOWN = 300


def ask_tcp(endpoint: Mapping[str, str], timeout: float) -> None:
    """Ask whether the port is listened on, in a container: inside it.

    Args:
        endpoint: The metadata of the service's handle.
        timeout: Seconds after which to give up.

    Raises:
        OSError: It is not.
        ServiceError: It is not, in the container.
    """
    address = _address(endpoint)
    if endpoint.get("backend") != "container":
        socket.create_connection(address, timeout).close()
    elif not is_listened_on(address, timeout):
        raise ServiceError(
            "nothing listens on its port inside the container, or only at 127.0.0.1 there",
            hint="the service has to listen at 0.0.0.0",
        )


def ask_http(
    endpoint: Mapping[str, str], path: str, timeout: float, *, status: int | None = None
) -> None:
    """Ask for a path by `GET`. Redirects are not followed.

    Args:
        endpoint: The metadata of the service's handle.
        path: Path, with query if need be.
        timeout: Seconds after which to give up.
        status: The status it has to answer with; any below 400, if none is given.

    Raises:
        ServiceError: It gave no answer in HTTP, or another one.
    """
    try:
        problem = get(_address(endpoint), path, timeout, status, _hider(endpoint))
    except (OSError, http.client.HTTPException) as exc:
        raise ServiceError(f"GET {path}: no answer in HTTP ({type(exc).__name__}: {exc})") from exc
    if problem:
        raise ServiceError(f"GET {path}: {problem}")


def ask_log(endpoint: Mapping[str, str], pattern: str) -> None:
    """Ask whether the service has written a line. It says nothing of how the service is later.

    A server that somebody else runs has no log to look at, and counts as ready.

    Args:
        endpoint: The metadata of the service's handle.
        pattern: A regular expression that is found in one of the last 10,000 lines.

    Raises:
        ServiceError: There is no such line yet.
    """
    if endpoint.get("backend") == "external":
        return
    lines = written_tail(endpoint, _LOG_LINES).splitlines()
    if not any(re.search(pattern, line) for line in lines):
        raise ServiceError(f"none of the {len(lines)} lines of its log has a match of {pattern!r}")


def ask_command(
    endpoint: Mapping[str, str], argv: Sequence[str], timeout: float, *, port: int
) -> None:
    """Ask by a command that ends with exit code 0: in the container, or else on this machine.

    Args:
        endpoint: The metadata of the service's handle.
        argv: Program and arguments, in which `{host}` and `{port}` stand for where the service is
            reached by the command. No error shows the arguments.
        timeout: Seconds after which to give up.
        port: Where the service listens in its container.

    Raises:
        ServiceError: It ended with another exit code, or not in time, or there is no such program.
    """
    contained = endpoint.get("backend") == "container"
    host, number = ("127.0.0.1", port) if contained else _address(endpoint)
    own = [text.replace("{host}", host).replace("{port}", str(number)) for text in argv]
    code, said = (_inside if contained else _here)(endpoint, own, timeout)
    if code != 0:
        shown = _hider(endpoint)(said).strip()[-_SHOWN:]
        raise ServiceError(f"command {argv[0]!r} ended with exit code {code}: {shown!r}")


def _inside(endpoint: Mapping[str, str], argv: Sequence[str], timeout: float) -> tuple[int, str]:
    from cleanroom_runtime._container_access import inside_of  # what a process needs not

    result = inside_of(ServiceHandle("", "", endpoint)).run(argv, timeout=timeout)
    return result.exit_code, f"{result.stdout}{result.stderr}"


def _here(endpoint: Mapping[str, str], argv: Sequence[str], timeout: float) -> tuple[int, str]:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        # Its own text shows the arguments.
        raise ServiceError(f"command {argv[0]!r} did not end within {timeout:.1f} s") from None
    except OSError as exc:
        raise ServiceError(
            f"command {argv[0]!r} cannot be run: {exc.strerror}",
            hint="where the service runs as a process, the command has to be on this machine",
        ) from exc
    return done.returncode, done.stdout.decode(errors="replace")


def _hider(endpoint: Mapping[str, str]) -> Callable[[str], str]:
    return hide_all(secrets_in(endpoint))


def _address(endpoint: Mapping[str, str]) -> tuple[str, int]:
    return endpoint["host"], int(endpoint["port"])
