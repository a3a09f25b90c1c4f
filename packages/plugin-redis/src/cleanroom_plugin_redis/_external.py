"""A Redis server that somebody else runs: only empty databases of it are used."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from cleanroom import ServiceHandle
from cleanroom_plugin_redis import _client
from cleanroom_plugin_redis._isolation import release_foreign
from cleanroom_runtime import current_run


def attach(url: str, service_id: str, service: str) -> dict[str, str]:
    """Return the metadata of the server. The clean-up is registered before anything is used."""
    metadata = _client.parse_url(url)
    metadata["service_id"] = service_id
    current_run().request(
        "register",
        helper={
            "argv": [sys.executable, "-m", "cleanroom_plugin_redis._external"],
            "input": ServiceHandle(service_id, service, metadata).to_json(),
        },
    )
    with _client.connect(metadata) as client:
        metadata["databases"] = str(client.config_get("databases").get("databases", 16))
    return metadata


def detach(metadata: Mapping[str, str]) -> None:
    """Empty and give up the databases that the service has used. Doing it twice is fine."""
    release_foreign(metadata, metadata["service_id"])


if __name__ == "__main__":  # run by the warden, when the run ended without detaching
    detach(ServiceHandle.from_json(sys.stdin.read()).metadata)
