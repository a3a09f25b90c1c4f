"""Handles elsewhere: in another process, and of services that are not there."""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

from cleanroom import ServiceHandle, ServicePlugin
from cleanroom._secrets import scrub
from cleanroom.testing._verdict import reject, require

_PATIENCE = 60.0

_ASK = """
import base64, json, pickle, sys
given = json.load(sys.stdin)
sys.path[:] = given["path"]
from cleanroom import ServiceHandle
handle = ServiceHandle.from_json(given["handle"])
plugin = pickle.loads(base64.b64decode(given["plugin"]))
status = plugin.health_check(handle)
print("\\n" + json.dumps([status.value, handle.to_json()]))
"""


@contextlib.contextmanager
def at_a_silent_address(handle: ServiceHandle) -> Iterator[ServiceHandle]:
    """Return the service's handle with another address, at which nobody ever answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and that is all
        port: int = silent.getsockname()[1]
        parts = urlsplit(handle.url)
        user, at, _ = parts.netloc.rpartition("@")
        url = parts._replace(netloc=f"{user}{at}127.0.0.1:{port}").geturl()
        address = {"host": "127.0.0.1", "port": str(port), "url": url}
        yield ServiceHandle(handle.id, handle.service_name, {**handle.metadata, **address})


def another_object(plugin: ServicePlugin) -> ServicePlugin:
    """Return another object of the plugin, as another process makes one for itself.

    Of a plugin that cannot be pickled, which a check of its own says, it is the same one.
    """
    with contextlib.suppress(Exception):
        other: ServicePlugin = pickle.loads(pickle.dumps(plugin))  # noqa: S301 - our own
        return other
    return plugin


def asked_in_another_process(
    plugin: ServicePlugin, handle: ServiceHandle
) -> tuple[str, ServiceHandle]:
    """Send the handle as JSON to a new process, and ask for the service's health there.

    The plugin goes along pickled, being what that process would make for itself.

    Returns:
        The health it saw, and the handle as it came back.
    """
    try:
        pickled = pickle.dumps(plugin)
    except Exception as error:  # noqa: BLE001 - what an object raises that cannot be pickled
        reject(
            f"the plugin cannot be pickled, so it cannot be brought to another process: {error}",
            "keep plain data in its attributes, no open files, locks, processes or lambdas; what "
            "a service needs to be found stands in its handle",
        )
    given = json.dumps(
        {
            "path": sys.path,
            "plugin": base64.b64encode(pickled).decode(),
            "handle": handle.to_json(),
        }
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK],
            input=given,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        reject(
            f"asking for health in another process took more than {_PATIENCE:g} s",
            "give every question to the service a timeout",
        )
    last = scrub("\n".join(done.stderr.splitlines()[-1:]))
    where = ""
    if "ModuleNotFoundError" in last or "Can't get attribute" in last:
        where = "define the plugin's class in a module that can be imported; "
    require(
        done.returncode == 0,
        f"asking for health in another process failed: {last}",
        f"{where}let what a service needs to be found stand in its handle, not in the object "
        "that started it",
    )
    status, text = json.loads(done.stdout.splitlines()[-1])
    return str(status), ServiceHandle.from_json(text)
