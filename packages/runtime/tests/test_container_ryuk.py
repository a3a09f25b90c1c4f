import io
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from docker.errors import NotFound

from cleanroom import ContainerError
from cleanroom_runtime._container import launch
from cleanroom_runtime._container_spec import ContainerSpec
from cleanroom_runtime._engine import Engine
from cleanroom_runtime._run import Run
from cleanroom_runtime._warden._containers import RUN_LABEL

SESSION_LABEL = "org.testcontainers.session-id"

STAND_IN = r"""
FROM %s
ENTRYPOINT ["perl", "-MIO::Socket::INET", "-e", "\
    $| = 1; \
    $server = IO::Socket::INET->new(Listen => 5, LocalPort => 8080); \
    print qq(Ryuk Started!\n); \
    $client = $server->accept; \
    print while <$client>; \
    sleep 2"]
"""

SCRIPT = textwrap.dedent(
    """
    import json, sys
    from concurrent.futures import ThreadPoolExecutor
    from cleanroom_runtime._container import launch
    from cleanroom_runtime._engine import find_engine
    from cleanroom_runtime._run import current_run
    from cleanroom_runtime._container_spec import ContainerSpec

    run = current_run()
    spec = ContainerSpec(sys.argv[1], 5432, command=["sleep", "600"])
    with ThreadPoolExecutor(2) as pool:
        for name in ("one", "two"):
            pool.submit(launch, run, run.new_service_id(), name, spec, find_engine())
    print(json.dumps(run.id), flush=True)
    sys.stdin.readline()
    run.shut_down()
    """
)


@pytest.fixture
def ryuk_image(docker_engine: docker.DockerClient, postgres_image: str) -> Iterator[str]:
    """An image that ends some time after its client, as Ryuk's does, but removes nothing."""
    tag = f"cleanroom-test/ryuk:{os.urandom(4).hex()}"
    recipe = io.BytesIO((STAND_IN % postgres_image).encode())
    docker_engine.images.build(fileobj=recipe, tag=tag, rm=True, forcerm=True)
    yield tag
    docker_engine.images.remove(tag, force=True)


def test_ryuk_can_be_asked_for(
    engine: Engine, docker_engine: docker.DockerClient, postgres_image: str, ryuk_image: str
) -> None:
    """With CLEANROOM_RYUK=1, one Ryuk watches over all containers that the process starts."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, postgres_image],
        env={**os.environ, "CLEANROOM_RYUK": "1", "RYUK_CONTAINER_IMAGE": ryuk_image},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        run_id = json.loads(process.stdout.readline())
        label = {"label": f"{RUN_LABEL}={run_id}"}
        sessions = [
            each.labels[SESSION_LABEL] for each in docker_engine.containers.list(filters=label)
        ]
        assert len(sessions) == 2
        ryuk = docker_engine.containers.get(f"testcontainers-ryuk-{sessions[0]}")
        deadline = time.monotonic() + 10
        while f"label={SESSION_LABEL}={sessions[0]}" not in ryuk.logs().decode():
            assert time.monotonic() < deadline, ryuk.logs()
            time.sleep(0.05)
        assert set(sessions) == {sessions[0]}
        process.stdin.write(b"\n")
    assert process.returncode == 0
    deadline = time.monotonic() + 10
    while not is_gone(ryuk):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_gone(container: Any) -> bool:
    try:
        container.reload()
    except NotFound:
        return True
    return False


def test_ryuk_that_does_not_start(
    run: Run, engine: Engine, postgres_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Ryuk was asked for and does not start, it is named as what failed."""
    from testcontainers.core.config import testcontainers_config

    monkeypatch.setenv("CLEANROOM_RYUK", "1")
    monkeypatch.setattr(testcontainers_config, "ryuk_image", "localhost:1/none:1")
    spec = ContainerSpec(postgres_image, 5432)
    with pytest.raises(ContainerError, match="Ryuk could not be started: ") as caught:
        launch(run, run.new_service_id(), "box", spec, engine)
    assert caught.value.hint == "see to its image, or unset CLEANROOM_RYUK"
