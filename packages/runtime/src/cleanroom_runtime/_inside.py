"""Commands and files in a running container."""

from __future__ import annotations

import http.client
import json
import posixpath
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cleanroom import ContainerError
from cleanroom_runtime._archive import FileError, archive, file_in, link_in, unpack
from cleanroom_runtime._asking import ask_engine, engine_error
from cleanroom_runtime._container import frames
from cleanroom_runtime._container_spec import HINT_FOR_MEMORY, memory_over
from cleanroom_runtime._engine import Engine, in_words
from cleanroom_runtime._warden._engine_api import open_stream, reason_in

_CHUNK = 64 * 1024
_MOST_LINKS = 8


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command in a container ended.

    Attributes:
        exit_code: As its program returned it; 126 and 127 where there was none to run.
        stdout: What it wrote to its standard output.
        stderr: What it wrote to its standard error.
    """

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Inside:
    """The inside of a container.

    Attributes:
        container_id: The container's.
        engine: Where it is.
        service_name: The service's name, for errors.
    """

    container_id: str
    engine: Engine
    service_name: str | None = None

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        timeout: float = 60.0,
    ) -> ExecResult:
        """Run a command and return how it ended.

        Args:
            argv: Program and arguments. No error shows the arguments.
            env: Environment variables beside the container's own.
            user: User to run it as; the container's when not given.
            cwd: Working directory inside; the container's when not given.
            timeout: Seconds it may take.

        Raises:
            ContainerError: The container does not run, or the command was not done in time.
        """
        wanted: dict[str, Any] = {
            "Cmd": list(argv),
            "AttachStdout": True,
            "AttachStderr": True,
            "Env": [f"{key}={value}" for key, value in (env or {}).items()],
            "User": user or "",
            "WorkingDir": cwd or "",
        }
        try:
            made = self._ask("POST", f"/containers/{self.container_id}/exec", wanted)["Id"]
            deadline = time.monotonic() + timeout
            output = self._output(f"/exec/{made}/start", deadline)
            while (facts := self._ask("GET", f"/exec/{made}/json"))["Running"]:
                if time.monotonic() > deadline:
                    raise TimeoutError
                time.sleep(0.005)
        except TimeoutError as exc:
            raise self._error(
                f"{argv[0]!r} was not done after {timeout:g} s; it may still be running there",
                "give it more time, or see what it waits for",
            ) from exc
        except _RefusalError as exc:
            raise self._error(
                f"{argv[0]!r} could not be run in the container: {exc}",
                "see whether the container is running, and whether it has this program",
            ) from exc
        except (OSError, http.client.HTTPException) as exc:
            words = in_words(exc) if isinstance(exc, OSError) else repr(exc)
            message = f"the engine does not answer: {words}"
            raise engine_error(self.engine, message, self.service_name) from exc
        streams = {1: b"", 2: b""}
        for number, part in frames(output):
            streams[2 if number == 2 else 1] += part
        texts = [stream.decode(errors="replace") for stream in streams.values()]
        return ExecResult(int(facts["ExitCode"]), *texts)

    def write(self, path: str, content: bytes | Path) -> None:
        """Put a file, or a local file or folder, at a path inside. It will belong to root.

        Raises:
            ContainerError: It could not be read or written, or would lie in memory.
        """
        target = f"/containers/{self.container_id}/archive?path=%2F"
        try:
            body = archive({path: content})
        except FileError as exc:
            raise self._error(str(exc), "see to it that it can be read") from exc
        try:
            facts = self._ask("GET", f"/containers/{self.container_id}/json")
            if memory := memory_over(path, *_mounted(facts)):
                what = f"{path} lies in the tmpfs {memory} of the container"
                raise self._error(what, HINT_FOR_MEMORY)
            self._ask("PUT", target, body)
        except _RefusalError as exc:
            raise self._error(
                f"{path} could not be written in the container: {exc}",
                "see whether the container is there, and whether it may be written to",
            ) from exc

    def read(self, path: str) -> bytes:
        """Return the content of a file inside.

        Raises:
            ContainerError: There is none, or it is a folder.
        """
        try:
            return file_in(self._archive(path))
        except FileError as exc:
            hint = "name a local folder to copy it to"
            raise self._error(f"{path} cannot be read: {exc}", hint) from exc

    def fetch(self, path: str, folder: Path) -> Path:
        """Copy a file or folder from inside into a local folder, and return the copy's path.

        Raises:
            ContainerError: There is none, or it could not be copied.
        """
        content = self._archive(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return unpack(content, folder)
        except FileError as exc:
            hint = "name a file or a folder; what else there is can be read by a command"
            raise self._error(f"{path} could not be copied: {exc}", hint) from exc
        except OSError as exc:
            what = f"{path} could not be copied to {folder}: {exc}"
            raise self._error(what, "see to it that this folder can be written to") from exc

    def _archive(self, path: str) -> bytes:
        """Return a file or folder as an archive; where it is a link, what that leads to."""
        at = path
        for _ in range(_MOST_LINKS):
            target = f"/containers/{self.container_id}/archive?path={quote(at, safe='')}"
            status, body = ask_engine(self.engine, "GET", target, self.service_name)
            if status >= 300:
                raise self._error(
                    f"{path} could not be read in the container: {reason_in(body)}",
                    "see whether it is there: a file in memory (tmpfs) cannot be copied, but read "
                    "by a command",
                )
            link = link_in(body)
            if link is None:
                return body
            at = posixpath.normpath(posixpath.join(posixpath.dirname(at), link))
        raise self._error(f"{path} is a link that leads nowhere", "name the file it stands for")

    def _ask(
        self, method: str, path: str, body: dict[str, Any] | bytes | None = None
    ) -> dict[str, Any]:
        status, answer = ask_engine(self.engine, method, path, self.service_name, body=body)
        if status >= 300:
            raise _RefusalError(reason_in(answer))
        found: dict[str, Any] = json.loads(answer or b"{}")
        return found

    def _output(self, path: str, deadline: float) -> bytes:
        """Start a command and return all it writes."""
        body = b'{"Detach": false, "Tty": false}'
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with open_stream(self.engine.warden_record(), _left(deadline)) as stream:
            stream.sendall(head.encode() + body)
            output = bytearray()
            with http.client.HTTPResponse(stream, method="POST") as response:
                response.begin()
                while part := response.read1(_CHUNK):
                    output += part
                    stream.settimeout(_left(deadline))
        if response.status >= 300:
            raise _RefusalError(reason_in(bytes(output)))
        return bytes(output)

    def _error(self, message: str, hint: str) -> ContainerError:
        return ContainerError(message, service=self.service_name, backend="container", hint=hint)


def _mounted(facts: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Return what is mounted in a container: what is in memory, and what else."""
    mounts = facts.get("Mounts") or ()
    tmpfs = {*(facts["HostConfig"].get("Tmpfs") or ())}
    tmpfs |= {each["Destination"] for each in mounts if each["Type"] == "tmpfs"}
    return tmpfs, {each["Destination"] for each in mounts} - tmpfs


class _RefusalError(Exception):
    """What the engine refused, in its words."""


def _left(deadline: float) -> float:
    """Seconds until the deadline, which must be some for a socket."""
    return max(0.001, deadline - time.monotonic())
