"""Launching servers before they are asked for, as the last run has launched them.

While pytest collects, one processor or more has nothing to do. What the last run of the same tests
had launched is launched then, by the warden alone. When a service is asked for, its plugin says as
always what it runs. Only if that would be launched in the very same way, from the same files and
with the same environment, is the process taken that runs already. Else it is ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cleanroom_runtime import _notes
from cleanroom_runtime._caches import cache_root
from cleanroom_runtime._process import Place, description, whereabouts
from cleanroom_runtime._small_files import note_use

if TYPE_CHECKING:
    from cleanroom_runtime._plugin import BasePlugin
    from cleanroom_runtime._run import Run
    from cleanroom_runtime._specs import ProcessSpec

_MARKERS = ("\ue000directory", "\ue000data", "\ue000port")
"""Stand in what is noted for what is another in each run: what `whereabouts` chooses."""
_NOT_OF_SERVERS = ("COLUMNS", "LINES")
"""Variables of the environment that pytest-xdist sets for its workers, who have no terminal."""
_PYTESTS_OWN = "PYTEST_"
_shared: ContextVar[BasePlugin | None] = ContextVar("cleanroom_shared", default=None)


class Launched(NamedTuple):
    """A process that was launched ahead and is now that of a service.

    Attributes:
        id: The service's.
        place: Where it runs.
        pid: Its process id.
    """

    id: str
    place: Place
    pid: str


def launch_again(run: Run) -> None:
    """Start the warden, and have it launch what the last run has launched. Waits for neither.

    Raises:
        CleanroomError: The warden could not be started.
    """
    assert run.note is not None  # noqa: S101 - else there is nothing to do again
    note_use(run.note)
    run.wake()
    for name, noted in _notes.read(run.note).items():
        if noted.launch is not None and not noted.in_vain:
            _launch(run, name, noted.launch)


def _launch(run: Run, service: str, noted: str) -> None:
    service_id = run.new_service_id()
    where = [str(each) for each in whereabouts(run, service_id)]
    text = noted
    for marker, value in zip(_MARKERS, where, strict=True):
        text = text.replace(_in_json(marker), _in_json(value))
    try:
        known = json.loads(text)
        stamp = known.pop("stamp")
        if stamp != _stamp(known["copy"]):
            return  # what it would be a copy of is another by now, or gone
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return
    ahead = {"service": service, "how": _how(noted), "where": where}
    run.tell("spawn", id=service_id, env=dict(os.environ), **known, ahead=ahead)


@contextlib.contextmanager
def shared(plugin: BasePlugin) -> Iterator[None]:
    """Within it, the start of this plugin is that of a service which the whole run shares."""
    token = _shared.set(plugin)
    try:
        yield
    finally:
        _shared.reset(token)


def take(run: Run, plugin: BasePlugin, place: Place, spec: ProcessSpec) -> Launched | None:
    """Return the process launched ahead for a service, if it was launched as it would be now.

    Raises:
        InternalError: The warden is gone.
    """
    if run.note is None or _shared.get() is not plugin:
        return None
    noted = _noted(place, spec)
    reply = run.request("take", service=plugin.name, how=_how(noted) if noted else "")
    was = _notes.read(run.note).get(plugin.name, _notes.Noted())
    # Launched just so, and still not as wanted, it was in another environment; as it will be again.
    in_vain = was.launch == noted and (was.in_vain or reply.get("unwanted", False))
    _notes.add(run.note, plugin.name, _notes.Noted(noted, in_vain))
    if not reply["taken"]:
        return None
    directory, data, port = reply["where"]
    old = place.workspace
    new = old._replace(directory=Path(directory), data=Path(data), port=int(port))
    try:
        for path, content in spec.files.items():
            _write(Path(str(path).replace(str(old.directory), directory)), content)
    except BaseException:
        run.request("stop", id=reply["id"])  # nobody else knows that it is there
        raise
    return Launched(reply["id"], place._replace(workspace=new), str(reply["pid"]))


def note_started(run: Run, plugin: BasePlugin) -> None:
    """Note that a service is started otherwise than as a process, and end one launched for it."""
    if run.note is not None and _shared.get() is plugin:
        run.tell("take", service=plugin.name, how="")
        _notes.add(run.note, plugin.name, _notes.Noted())


def forget_others(run: Run, services: set[str]) -> None:
    """Have the next run launch nothing but these services ahead."""
    if run.note is not None:
        _notes.keep_only(run.note, services)


def _noted(place: Place, spec: ProcessSpec) -> str | None:
    """How a process is launched, wherever it is; `None` if that must not be noted."""
    if not spec.ahead or spec.env or place.account.kind == "other":
        return None
    described = description(place, spec)
    root = cache_root()
    if spec.copy and not (root and spec.copy[0].is_relative_to(root)):
        return None  # it was made for this run alone
    try:
        text = json.dumps({**described, "stamp": _stamp(described["copy"])})
    except OSError:
        return None
    workspace = place.workspace
    values = (workspace.directory, workspace.data, workspace.port)
    # The folder for data first, as it may begin with the directory.
    for marker, value in sorted(zip(_MARKERS, map(str, values), strict=True)):
        text = text.replace(_in_json(value), _in_json(marker))
    return text


def _stamp(copy: list[str]) -> list[int]:
    """What is another for each content of what is copied, and after each change of it."""
    if not copy:
        return []
    status = os.stat(copy[0])
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _write(path: Path, content: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(content)


def _how(noted: str) -> str:
    """A digest of how a process is launched, its environment included; pytest's own part is not."""
    counts = [
        variable
        for variable in sorted(os.environ.items())
        if not variable[0].startswith(_PYTESTS_OWN) and variable[0] not in _NOT_OF_SERVERS
    ]
    text = json.dumps([noted, counts])
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]
