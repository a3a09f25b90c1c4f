"""What a container is waited for: each wait is a question that is asked until it is answered."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from cleanroom import ServiceError
from cleanroom_runtime._inside import Inside
from cleanroom_runtime._ready import BROKEN, NotReturnedError, call_within

Check = Callable[[Mapping[str, str]], object]
"""Is given the metadata of the service's handle; raises, or returns `False`, while not ready."""

_SILENCE = 0.1
_SHOWN = 300
"""Characters of what others say, secrets hidden before it is cut: half of one is one as well."""
_MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container is asked.

    Attributes:
        metadata: That of the service's handle.
        inside: The inside of the container.
        log: Returns all that the container wrote.
        hide: Removes secrets from a text.
    """

    metadata: Mapping[str, str]
    inside: Inside
    log: Callable[[], str]
    hide: Callable[[str], str]

    def address(self, port: int) -> tuple[str, int]:
        """Where a port of the container is reached."""
        return self.metadata[f"host_{port}"], int(self.metadata[f"port_{port}"])


class UnansweredError(ServiceError):
    """There was no answer at a port.

    Attributes:
        port: Inside the container.
    """

    port: int = 0


class Wait(ABC):
    """A question to a container. As a text, it says what is waited for."""

    lasting: ClassVar[bool] = True
    """Whether it is asked again to see if the service is healthy."""
    patient: ClassVar[bool] = False
    """Whether once may take as long as the start has left: what a user gave knows how long."""

    @abstractmethod
    def ask(self, place: Place, timeout: float) -> None:
        """Ask once.

        Raises:
            ServiceError: The answer is not the right one yet; says what was waited for.
        """

    def unmet(self, problem: str, hint: str | None = None) -> ServiceError:
        """Return the error for an answer that is not the right one."""
        return ServiceError(f"waiting for {self}: {problem}", hint=hint)

    def unanswered(self, port: int, problem: str, hint: str | None = None) -> UnansweredError:
        """Return the error for no answer at a port."""
        error = UnansweredError(f"waiting for {self}: {problem}", hint=hint)
        error.port = port
        return error


@dataclass(frozen=True)
class PortWait(Wait):
    """A port is listened on."""

    port: int

    def __str__(self) -> str:
        return f"port {self.port}"

    def ask(self, place: Place, timeout: float) -> None:
        """Connect."""
        if not is_listened_on(place.address(self.port), timeout):
            raise self.unanswered(
                self.port,
                "nothing listens on it inside the container, or only at 127.0.0.1 there",
                "see ports and wait; the service has to listen at 0.0.0.0",
            )


@dataclass(frozen=True)
class LogWait(Wait):
    """A text, or a match of a pattern, is in the log."""

    text: str = ""
    pattern: re.Pattern[str] | None = None
    lasting: ClassVar[bool] = False

    def __str__(self) -> str:
        if self.pattern is not None:
            return f"a match of {self.pattern.pattern!r} in the log"
        return f"{self.text!r} in the log"

    def ask(self, place: Place, timeout: float) -> None:
        """Look into the whole log."""
        log = place.log()
        found = self.text in log if self.pattern is None else self.pattern.search(log)
        if not found:
            lines = log.count("\n")
            raise self.unmet(f"it is not in the {lines} lines so far" if lines else "it is empty")


@dataclass(frozen=True)
class HttpWait(Wait):
    """A path answers with a status, or with any below 400."""

    path: str
    port: int
    status: int | None = None

    def __str__(self) -> str:
        return f"GET {self.path} on port {self.port}"

    def ask(self, place: Place, timeout: float) -> None:
        """Ask for the path. Redirects are not followed."""
        try:
            address = place.address(self.port)
            problem = get(address, self.path, timeout, self.status, place.hide)
        except (OSError, http.client.HTTPException) as exc:
            said = place.hide(_in_words(exc))[:_SHOWN]
            raise self.unanswered(self.port, f"no answer in HTTP ({said})") from exc
        if problem:
            raise self.unmet(problem)


@dataclass(frozen=True)
class CommandWait(Wait):
    """A command in the container ends with exit code 0. Its arguments are not shown."""

    argv: tuple[str, ...]
    patient: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"command {self.argv[0]!r} in the container"

    def ask(self, place: Place, timeout: float) -> None:
        """Run it."""
        result = place.inside.run(self.argv, timeout=timeout)
        if result.exit_code != 0:
            said = place.hide(f"{result.stdout}{result.stderr}".strip())[-_SHOWN:]
            raise self.unmet(f"it ended with exit code {result.exit_code}: {said!r}")


@dataclass(frozen=True)
class CheckWait(Wait):
    """A callable does not raise, nor return `False`."""

    check: Check
    patient: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"check {getattr(self.check, '__name__', repr(self.check))}"

    def ask(self, place: Place, timeout: float) -> None:
        """Call it. One that hangs is left alone, and what a broken one raises is passed on."""
        try:
            verdict = call_within(lambda: self.check(place.metadata), timeout)
        except NotReturnedError as exc:
            raise self.unmet(str(exc)) from exc
        except BROKEN:
            raise
        except Exception as exc:
            raise self.unmet(f"it raised {place.hide(_in_words(exc))[:_SHOWN]}") from exc
        if verdict is False:
            raise self.unmet("it returned False")


def is_listened_on(address: tuple[str, int], timeout: float) -> bool:
    """Whether a port that an engine publishes is listened on, and not just by the engine.

    Who accepts for the container hangs up at once if nobody listens inside.
    """
    began = time.monotonic()
    try:
        with socket.create_connection(address, timeout) as connection:
            away = time.monotonic() - began
            connection.settimeout(min(timeout, _SILENCE + 2 * away))
            return bool(connection.recv(1))
    except ConnectionError:
        return False
    except TimeoutError:
        return time.monotonic() - began < timeout


def get(
    address: tuple[str, int],
    path: str,
    timeout: float,
    status: int | None,
    hide: Callable[[str], str],
) -> str:
    """Ask for a path, and return what is wrong with the answer, if anything is.

    Args:
        address: Host and port.
        path: Path, with query if need be. No redirect is followed.
        timeout: Seconds after which to give up.
        status: The status it has to answer with; any below 400, if none is given.
        hide: Removes secrets from a text.
    """
    deadline = time.monotonic() + timeout
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        with connection.getresponse() as response:
            found = response.status
            if found == status if status else found < 400:
                return ""
            said = hide(_beginning(response, deadline).decode(errors="replace"))[:_SHOWN]
    finally:
        connection.close()
    return f"the answer has status {found}, and {status or 'one below 400'} is expected: {said!r}"


def _beginning(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """What comes of a body until a moment; the answer was given, however long it goes on."""
    body = bytearray()
    with contextlib.suppress(OSError, http.client.HTTPException):
        while len(body) < _MOST_BYTES and time.monotonic() < deadline:
            part = response.read1(_MOST_BYTES)
            if not part:
                break
            body += part
    return bytes(body)


def _in_words(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}".rstrip(": ")
