"""The checks of `cleanroom doctor`. Each looks at one thing and starts nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from cleanroom import CleanroomError, PluginError, discovery
from cleanroom_cli._backends import engine, local_servers, says, with_defaults
from cleanroom_runtime import BasePlugin
from cleanroom_runtime._engine import NoEngine

if TYPE_CHECKING:
    from cleanroom.config import DeclaredService

State = Literal["ok", "warn", "fail"]


class Check(NamedTuple):
    """The outcome of a check.

    Attributes:
        what: What was looked at.
        state: See `cleanroom doctor --help`.
        found: What was found.
        remedy: What to do about it; empty where it is well.
    """

    what: str
    state: State
    found: str
    remedy: str = ""


def all_checks(config: str | None) -> Iterator[Check]:
    """Yield every check.

    Args:
        config: File or folder with declared services, as for `CleanroomEnvironment.from_config`.
    """
    yield _engine()
    yield from _plugins()
    yield from _account()
    yield _ports()
    yield from _folders()
    yield _memory()
    yield _cache()
    yield _leftovers()
    yield from _declared(config)


def _engine() -> Check:
    found = engine()
    if isinstance(found, NoEngine):
        return Check("container engine", "warn", f"none answers ({found.reason})", found.hint)
    return Check("container engine", "ok", f"{found.url} answers ({found.source})")


def _plugins() -> Iterator[Check]:
    for name in dict.fromkeys(entry.name for entry in discovery.installed() if not entry.disabled):
        try:
            kind = discovery.load_plugin(name)
            if issubclass(kind, BasePlugin):
                yield from _servers(name, kind)
        except PluginError as exc:
            remedy = exc.hint or "upgrade or uninstall what it comes from"
            yield Check(f"plugin {name}", "fail", exc.message, remedy)
        except Exception as exc:  # noqa: BLE001 - whatever a plugin does
            remedy = "upgrade or uninstall what it comes from"
            yield Check(f"plugin {name}", "fail", f"raised {exc!r}", remedy)
    discovery.hook_manager()
    for entry in discovery.installed("cleanroom.hooks"):
        if entry.error is not None and not entry.disabled:
            remedy = entry.error.hint or "upgrade or uninstall what it comes from"
            yield Check(f"hooks {entry.name}", "fail", entry.error.message, remedy)


def _servers(name: str, kind: type[BasePlugin]) -> Iterator[Check]:
    """The servers of a plugin on this machine, if it has any without a word of the user's."""
    plugin, found = with_defaults(kind), local_servers(kind)
    if plugin is None or found is None or not says(kind, "process"):
        return
    if found:
        each = [f"{server.version} in {server.executable.parent}" for server in found]
        yield Check(f"{name} server", "ok", "; ".join(each))
        return
    elsewhere = isinstance(engine(), NoEngine) or not says(kind, "container")
    state: State = "fail" if elsewhere else "warn"
    yield Check(f"{name} server", state, "none on this machine", plugin.install_hint(None))


def _account() -> Iterator[Check]:
    """How programs run that refuse to run as root."""
    if os.getuid() != 0:
        yield Check("user", "ok", f"uid {os.getuid()}, not root: servers run as this user")
        return
    from cleanroom_runtime._account import account_for

    try:
        account = account_for(refuses_root=True)
    except CleanroomError as exc:
        yield Check("user namespaces", "warn", exc.message, exc.hint or "")
        return
    if account.kind == "namespace":
        yield Check("user namespaces", "ok", "root may make them")
    else:
        found = f"not allowed: servers that refuse root run as uid {account.uid}"
        remedy = "allow them, or leave it so: it works, if the server's program can be copied"
        yield Check("user namespaces", "warn", found, remedy)


def _ports() -> Check:
    """Whether a service would be reached where services are: on a free port of 127.0.0.1."""
    import socket

    from cleanroom_runtime._process import HOST

    try:
        with socket.socket() as listener:
            listener.bind((HOST, 0))
            listener.listen()
            socket.create_connection(listener.getsockname(), timeout=2).close()
    except OSError as exc:
        found = f"{HOST} cannot be listened on, or reached: {exc.strerror or exc}"
        remedy = "set the loopback interface up, or end what has taken all ports (ss -tln)"
        return Check("ports", "fail", found, remedy)
    return Check("ports", "ok", f"{HOST} can be listened on, and reached")


def _folders() -> Iterator[Check]:
    from cleanroom_runtime._folders import check_private, run_root

    try:
        root = run_root()
        if root.exists():
            check_private(root)
    except CleanroomError as exc:
        yield Check("folder for runs", "fail", exc.message, exc.hint or "")
        return
    import tempfile

    wanted = tempfile.gettempdir()
    if root.parent.as_posix() == wanted:
        yield Check("folder for runs", "ok", str(root))
    else:
        found = f"{root}, as {wanted} is not writable, or its path too long for sockets"
        yield Check(
            "folder for runs", "warn", found, "set TMPDIR to a writable folder with a short path"
        )


def _memory() -> Check:
    from cleanroom_cli._output import in_bytes
    from cleanroom_runtime._folders import memory_folder
    from cleanroom_runtime._process import MEMORY_WANTED

    folder = memory_folder(MEMORY_WANTED)
    if folder is not None:
        return Check("memory for data", "ok", f"{folder} has room for {in_bytes(MEMORY_WANTED)}")
    found = f"there is no {in_bytes(MEMORY_WANTED)} in /dev/shm: data lies on disk, which is slower"
    remedy = "give it more room (of a container: docker run --shm-size=1g)"
    return Check("memory for data", "warn", found, remedy)


def _cache() -> Check:
    from cleanroom_runtime._caches import CACHE_VARIABLE, cache_root

    root = cache_root()
    remedy = f"set {CACHE_VARIABLE} to a folder that can be written to"
    if root is None:
        found = "none, as this user has no home: servers are initialised in every run"
        return Check("cache", "warn", found, remedy)
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return Check("cache", "ok", str(root))
    found = f"{there} cannot be written to: servers are initialised in every run"
    return Check("cache", "warn", found, remedy)


def _leftovers() -> Check:
    from cleanroom_cli._output import plural
    from cleanroom_runtime._runs import known_runs

    runs = known_runs()
    dead = [run.id for run in runs if run.state == "dead"]
    kept = [run.id for run in runs if run.state == "kept"]
    found: list[str] = []
    if dead:
        found.append(f"of {plural(len(dead), 'dead run')}: {', '.join(dead)}")
    if kept:
        found.append(f"{plural(len(kept), 'kept run')}: {', '.join(kept)}")
    if not found:
        return Check("leftovers", "ok", "none")
    remedy = "cleanroom clean --kept" if kept else "cleanroom clean"
    return Check("leftovers", "warn", "; ".join(found), remedy)


def _declared(config: str | None) -> Iterator[Check]:
    """How each declared service would be started, and what stands in the way."""
    from cleanroom.config import load_config

    try:
        services = load_config(config)
    except CleanroomError as exc:
        yield Check("declared services", "fail", exc.message, exc.hint or "")
        return
    for service in services:
        yield _service(service)


def _service(service: DeclaredService) -> Check:
    what = f"service {service.name}"
    try:
        service.check()
        if service.depends_on:
            return Check(what, "ok", f"{service.plugin}, after {', '.join(service.depends_on)}")
        plugin = service.build({})
        if not isinstance(plugin, BasePlugin):
            return Check(what, "ok", f"{service.plugin}, in a way of its own")
        choice = plugin.choose()
    except CleanroomError as exc:
        return Check(what, "fail", exc.message, exc.hint or "")
    return Check(what, "ok", f"{service.plugin}: {choice.backend} ({choice.reason})")
