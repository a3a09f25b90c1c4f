"""`cleanroom up` on containers: they run for a command or until a signal, and are gone then."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.leftovers import RUN_LABEL, gone_within, until

if TYPE_CHECKING:
    import subprocess

    from docker import DockerClient

    from conftest import Cli, Spawn

BOUND = 30.0
"""Seconds in which a command that was told to end has ended, on a busy machine."""
PRINT_URLS = [
    sys.executable,
    "-c",
    "import os; print(*sorted(f'{k} {v}' for k, v in os.environ.items() if k.endswith('_URL')),"
    " sep='\\n')",
]


@pytest.fixture
def images(
    declare: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    redis_image: str,
    nginx_image: str,
) -> None:
    """Two images are declared in the current folder, of which one is told where the other is."""
    monkeypatch.delenv("CLEANROOM_BACKEND")
    declare(
        f"""
        [tool.cleanroom.services.cache]
        plugin = "redis"
        image = "{redis_image}"
        password = "sesame"

        [tool.cleanroom.services.web]
        plugin = "container"
        image = "{nginx_image}"
        ports = 80
        scheme = "http"
        env = {{ CACHE = "{{cache.url}}" }}
        wait = {{ http = "/" }}
        """
    )


def started(process: subprocess.Popen[str]) -> dict[str, dict[str, str]]:
    """Wait until services are up that were started with `--json`."""
    assert process.stdout
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    services: dict[str, dict[str, str]] = json.loads(line)["services"]
    return services


def run_of(container: Any) -> str:
    """The id of the run that a container is of."""
    return str(container.labels[RUN_LABEL])


def test_a_command_gets_the_urls_of_containers(cli: Cli, images: None) -> None:
    """Containers are started one after what it depends on, and a command has the URL of each."""
    said = cli("up", "--", *PRINT_URLS)
    assert said.code == 0, said.err
    cache, web = said.out.splitlines()
    assert cache.startswith("CACHE_URL redis://:sesame@127.0.0.1:")
    assert web.startswith("WEB_URL http://127.0.0.1:")
    starts = [line.split(" in ")[0] for line in said.err.splitlines()[:4]]
    assert starts == ["cache: starting", "cache: ready", "web: starting", "web: ready"]
    assert "container" in said.err.splitlines()[5]
    assert "sesame" not in said.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_containers_until_a_signal(
    spawn: Spawn, images: None, docker_engine: DockerClient, number: signal.Signals
) -> None:
    """A signal ends the command once its containers are removed, and the network with them."""
    process = spawn("up", "--json")
    services = started(process)
    containers = [
        docker_engine.containers.get(services[name]["container_id"]) for name in ("cache", "web")
    ]
    assert [container.status for container in containers] == ["running", "running"]
    run = run_of(containers[0])
    assert docker_engine.networks.list(filters={"label": f"{RUN_LABEL}={run}"})
    process.send_signal(number)
    assert process.wait(BOUND) == 0
    assert not docker_engine.networks.list(filters={"label": f"{RUN_LABEL}={run}"})
    gone_within(0, run, engine=True)


def test_containers_of_a_killed_command(
    spawn: Spawn, images: None, docker_engine: DockerClient
) -> None:
    """Containers are removed when the command that started them was killed."""
    process = spawn("up", "cache", "--json")
    services = started(process)
    run = run_of(docker_engine.containers.get(services["cache"]["container_id"]))
    process.kill()
    gone_within(BOUND, run, engine=True)


def test_a_container_that_dies(spawn: Spawn, images: None, docker_engine: DockerClient) -> None:
    """While it waits, the command says of a container that it does not work any more."""
    process = spawn("up", "cache", "--json")
    docker_engine.containers.get(started(process)["cache"]["container_id"]).kill()
    assert process.stderr
    assert "cache: unhealthy\n" in iter(process.stderr.readline, "")


def test_a_signal_while_a_container_starts(
    spawn: Spawn,
    declare: Callable[[str], None],
    docker_engine: DockerClient,
    images: None,
    nginx_image: str,
) -> None:
    """Ctrl-C while a container is waited for removes it, and gives 130."""
    declare(
        f"""
        [tool.cleanroom.services.never]
        plugin = "container"
        image = "{nginx_image}"
        ports = 80
        wait = {{ log = "this is never written" }}
        """
    )
    known = {container.id for container in docker_engine.containers.list()}
    process = spawn("up")
    found: list[Any] = []

    def runs() -> bool:
        every = docker_engine.containers.list(filters={"ancestor": nginx_image})
        found[:] = [each for each in every if each.id not in known]
        return bool(found)

    until(runs)
    run = run_of(found[0])
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=BOUND)
    assert process.returncode == 130
    assert "Traceback" not in err
    gone_within(0, run, engine=True)


def test_an_image_that_is_not_there(cli: Cli, declare: Callable[[str], None], images: None) -> None:
    """An image that cannot be had is told by its name, and the command is not run."""
    declare(
        """
        [tool.cleanroom.services.web]
        plugin = "container"
        image = "cleanroom-test/no-such-image:1"
        ports = 80
        pull = "never"
        """
    )
    said = cli("up", "--", *PRINT_URLS)
    assert (said.code, said.out) == (1, "")
    assert "cleanroom-test/no-such-image:1" in said.err
    assert "Traceback" not in said.err


def test_containers_on_a_terminal(terminal: Callable[..., tuple[int, str]], images: None) -> None:
    """On a terminal the table of containers keeps to its width."""
    code, shown = terminal(["up", "--", sys.executable, "-c", "raise SystemExit(3)"])
    assert code == 3
    table = shown[shown.rindex("service") :].splitlines()
    assert [line.split()[:2] for line in table[1:3]] == [
        ["cache", "container"],
        ["web", "container"],
    ]
    assert max(map(len, table)) <= 80
