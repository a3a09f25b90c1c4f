import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import pytest
from docker.errors import NotFound

from cleanroom import ContainerError
from cleanroom_runtime import _container
from cleanroom_runtime._container import (
    ContainerState,
    kill,
    launch,
    log_tail,
    remove,
    state,
)
from cleanroom_runtime._container_spec import ContainerSpec
from cleanroom_runtime._engine import Engine
from cleanroom_runtime._images import provide
from cleanroom_runtime._run import Run
from cleanroom_runtime._specs import Endpoint
from cleanroom_runtime._warden._containers import RUN_LABEL, SERVICE_LABEL

Start = Callable[..., Endpoint]


@pytest.fixture
def start(
    run: Run, engine: Engine, postgres_image: str, docker_engine: docker.DockerClient
) -> Iterator[Start]:
    """Launch a container of the PostgreSQL image, which does nothing unless told to.

    After each test nothing is left of its run.
    """

    def start(engine: Engine = engine, **spec: Any) -> Endpoint:
        settings = {"image": postgres_image, "port": 5432, "command": ["sleep", "600"], **spec}
        described = ContainerSpec(**settings)
        provide(run, "box", described, engine)
        return launch(run, run.new_service_id(), "box", described, engine)

    yield start
    run.shut_down()
    assert eventually(lambda: of_run(docker_engine, run.id) == [])


def of_run(client: docker.DockerClient, run_id: str) -> list[Any]:
    label = {"label": f"{RUN_LABEL}={run_id}"}
    return client.containers.list(all=True, filters=label, ignore_removed=True)


def inspect(client: docker.DockerClient, endpoint: Endpoint) -> dict[str, Any]:
    return client.containers.get(endpoint.facts["container_id"]).attrs


def eventually(check: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def connects(endpoint: Endpoint) -> bool:
    """Whether somebody behind the endpoint takes part: a published port alone accepts at once."""
    try:
        with socket.create_connection((endpoint.host, endpoint.port), 2) as sock:
            sock.sendall((8).to_bytes(4) + (80877103).to_bytes(4))  # an SSLRequest
            return sock.recv(1) in (b"N", b"S")
    except OSError:
        return False


class TestLaunch:
    def test_reachable(self, start: Start) -> None:
        """A service in a container is reached at the endpoint."""
        endpoint = start(
            command=None,
            env={"POSTGRES_PASSWORD": "hush", "POSTGRES_INITDB_ARGS": "--no-sync"},
            tmpfs={"/var/lib/postgresql/data": "rw"},
        )
        assert eventually(lambda: connects(endpoint), 60)

    def test_published_on_loopback_only(
        self, start: Start, engine: Engine, docker_engine: docker.DockerClient
    ) -> None:
        """On a local engine the port is published on 127.0.0.1 and nowhere else."""
        if not engine.local:
            pytest.skip("the engine is remote")
        endpoint = start()
        ports = inspect(docker_engine, endpoint)["NetworkSettings"]["Ports"]
        published = {port: bindings for port, bindings in ports.items() if bindings}
        assert published == {"5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(endpoint.port)}]}
        assert endpoint.host == "127.0.0.1"

    def test_labels_and_facts(
        self,
        run: Run,
        engine: Engine,
        postgres_image: str,
        docker_engine: docker.DockerClient,
    ) -> None:
        """A container carries the ids of its run and service, and the endpoint says which it is."""
        service_id = run.new_service_id()
        spec = ContainerSpec(postgres_image, 5432, command=["sleep", "600"])
        endpoint = launch(run, service_id, "box", spec, engine)
        [container] = of_run(docker_engine, run.id)
        assert container.labels[RUN_LABEL] == run.id
        assert container.labels[SERVICE_LABEL] == service_id
        assert container.name == f"cleanroom-{service_id}"
        assert endpoint.facts == {
            "container_id": container.id,
            "image": postgres_image,
            "engine": engine.url,
        }

    def test_settings(self, start: Start, engine: Engine) -> None:
        """Command, environment, user, files, tmpfs and limits are those of the specification."""
        endpoint = start(
            command=[
                "sh",
                "-c",
                "id -u; echo $GREETING; cat /etc/box/a /b; df -k /scratch /dev/shm; sleep 600",
            ],
            env={"GREETING": "hello there"},
            user="1234",
            files={"/etc/box/a": b"one\n", "/b": b"two\n"},
            tmpfs={"/scratch": "rw,size=12m"},
            shm_size=20 * 2**20,
        )
        container_id = endpoint.facts["container_id"]
        assert eventually(lambda: "/dev/shm" in log_tail(container_id, engine, 100))
        log = log_tail(container_id, engine, 100)
        assert log.startswith("1234\nhello there\none\ntwo\n")
        assert re.search(r"tmpfs +12288 .* /scratch\n", log)
        assert re.search(r"shm +20480 .* /dev/shm\n", log)

    def test_many_at_once(self, start: Start, run: Run, docker_engine: docker.DockerClient) -> None:
        """Containers start from several threads at once."""
        with ThreadPoolExecutor(6) as pool:
            endpoints = [future.result() for future in [pool.submit(start) for _ in range(6)]]
        assert len({endpoint.port for endpoint in endpoints}) == 6
        assert len(of_run(docker_engine, run.id)) == 6

    def test_testcontainers_is_left_alone(
        self, start: Start, docker_engine: docker.DockerClient
    ) -> None:
        """The user's own use of testcontainers keeps its Ryuk, which knows nothing of ours."""
        from testcontainers.core.config import testcontainers_config
        from testcontainers.core.container import Reaper
        from testcontainers.core.labels import LABEL_SESSION_ID

        before = testcontainers_config.ryuk_disabled
        endpoint = start()
        assert testcontainers_config.ryuk_disabled is before
        assert Reaper._instance is None
        assert LABEL_SESSION_ID not in inspect(docker_engine, endpoint)["Config"]["Labels"]

    def test_environment_is_left_alone(
        self, start: Start, engine: Engine, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With an engine named by a docker context, DOCKER_HOST stays unset in this process."""
        context = ["docker", "context", "create", "here", "--docker", f"host={engine.url}"]
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        subprocess.run(context, check=True, capture_output=True)
        monkeypatch.setenv("DOCKER_CONTEXT", "here")
        start()
        assert "DOCKER_HOST" not in os.environ

    def test_span(self, start: Start, exporter: Any) -> None:
        """The engine's part is a span with the image and the container's id."""
        endpoint = start()
        [span] = exporter.get_finished_spans()
        assert span.name == "cleanroom.container.start"
        assert span.attributes == {
            "container.image.name": endpoint.facts["image"],
            "container.id": endpoint.facts["container_id"],
        }


class TestLaunchFails:
    def test_image_missing(self, start: Start, run: Run, docker_engine: Any) -> None:
        """An image that is missing and must not be pulled is named, with what to do."""
        with pytest.raises(ContainerError) as caught:
            start(image="cleanroom-test/none:1", pull="never")
        assert caught.value.message == (
            "the engine has no image 'cleanroom-test/none:1', and pull='never' forbids to get it"
        )
        assert caught.value.hint == "docker pull cleanroom-test/none:1, or pull='missing'"
        assert (caught.value.service, caught.value.backend) == ("box", "container")

    def test_registry_unreachable(self, start: Start) -> None:
        """An image that cannot be pulled is named, with the engine's reason."""
        with pytest.raises(
            ContainerError, match=r"'localhost:1/none:1' could not be pulled: .*refused"
        ):
            start(image="localhost:1/none:1")

    def test_user_missing(self, start: Start, run: Run, docker_engine: Any) -> None:
        """A user the image does not have is the engine's refusal, and nothing is left."""
        with pytest.raises(ContainerError, match=r"refused to run image .*no-such-user"):
            start(user="no-such-user")
        assert of_run(docker_engine, run.id) == []

    def test_invalid_setting(self, start: Start, run: Run, docker_engine: Any) -> None:
        """What the engine does not accept is said in its own words."""
        with pytest.raises(ContainerError, match=r"refused to run image .*[Mm]emory"):
            start(memory=1)
        assert of_run(docker_engine, run.id) == []

    def test_file_that_does_not_fit(self, start: Start, run: Run, docker_engine: Any) -> None:
        """A file that cannot be put into the container ends the launch, and nothing is left."""
        with pytest.raises(ContainerError, match="refused to run image"):
            start(files={"/etc/passwd/below": b""})
        assert of_run(docker_engine, run.id) == []

    def test_engine_gone(self, start: Start, docker_engine: Any) -> None:
        """An engine that is gone since it was found is named."""
        gone = Engine("unix:///nowhere/docker.sock", "DOCKER_HOST")
        with pytest.raises(ContainerError, match="the engine does not answer: ") as caught:
            start(gone)
        assert "unix:///nowhere/docker.sock (from DOCKER_HOST)" in str(caught.value.hint)

    @pytest.mark.parametrize(
        "step",
        [
            "GET /version",
            "GET /images",
            "POST /containers/create",
            "PUT /containers/.*/archive",
            "POST /containers/.*/start",
            "GET /containers/.*/json",
        ],
    )
    def test_engine_dies_meanwhile(
        self, start: Start, run: Run, docker_engine: Any, faulty_engine: Any, step: str
    ) -> None:
        """An engine that hangs up at any step is an error that says so, and nothing is left."""
        faulty_engine.hang_up(step)
        with pytest.raises(
            ContainerError, match=r"the engine (stopped answering|does not answer): "
        ):
            start(faulty_engine.engine, files={"/a": b"a"})
        assert of_run(docker_engine, run.id) == []

    def test_disk_full(self, start: Start, faulty_engine: Any) -> None:
        """A full disk of the engine is told as such, with how to free some."""
        full = "mkdir /var/lib/docker/overlay2/x: no space left on device"
        faulty_engine.refuse("POST /containers/create", 500, full)
        with pytest.raises(ContainerError, match="the engine's disk is full: mkdir") as caught:
            start(faulty_engine.engine)
        assert "docker system prune" in str(caught.value.hint)

    @pytest.mark.parametrize("words", ["port is already allocated", "address already in use"])
    def test_port_taken(
        self, start: Start, run: Run, docker_engine: Any, faulty_engine: Any, words: str
    ) -> None:
        """A port that another program took in the meantime is replaced by another one."""
        faulty_engine.refuse("POST /containers/.*/start", 500, f"Bind failed: {words}", times=2)
        endpoint = start(faulty_engine.engine)
        [container] = of_run(docker_engine, run.id)
        assert container.id == endpoint.facts["container_id"]

    def test_every_port_taken(
        self, start: Start, run: Run, docker_engine: Any, faulty_engine: Any
    ) -> None:
        """When port after port is taken, the error says so, and nothing is left."""
        faulty_engine.refuse("POST /containers/.*/start", 500, "port is already allocated")
        with pytest.raises(ContainerError, match="every port the engine chose was taken"):
            start(faulty_engine.engine)
        assert of_run(docker_engine, run.id) == []

    def test_ended_at_once(
        self, start: Start, run: Run, docker_engine: Any, faulty_engine: Any
    ) -> None:
        """A container that ends at once is an error with exit code and log, without secrets."""
        faulty_engine.delay("GET /containers/.*/json", 1)
        with pytest.raises(ContainerError, match="ended at once with exit code 3") as caught:
            start(
                faulty_engine.engine,
                command=["sh", "-c", "echo no $BOX_PASSWORD >&2; exit 3"],
                env={"BOX_PASSWORD": "hush"},
            )
        assert caught.value.log_tail == "no ***\n"
        assert str(caught.value.hint).startswith("it was started from image ")
        assert of_run(docker_engine, run.id) == []

    def test_secrets_are_hidden(self, start: Start, faulty_engine: Any) -> None:
        """An engine that repeats a secret does not get it into an error."""
        faulty_engine.refuse("POST /containers/create", 400, "bad variable BOX_PASSWORD=hush")
        with pytest.raises(ContainerError) as caught:
            start(faulty_engine.engine, env={"BOX_PASSWORD": "hush"})
        assert "BOX_PASSWORD=***" in str(caught.value)
        assert "hush" not in str(caught.value)

    @pytest.mark.parametrize(
        ("fault", "sure"),
        [
            (("POST /containers/create", 500, "broken"), True),
            (("POST /containers/.*/start", 500, "broken"), True),
            (("POST /containers/create", 0, ""), False),
            (("(POST|DELETE) /containers/(?!create)", 0, ""), False),
        ],
    )
    def test_warden_is_told(
        self, start: Start, run: Run, faulty_engine: Any, fault: tuple[str, int, str], sure: bool
    ) -> None:
        """The warden need not look for a container that is certain not to come any more."""
        faulty_engine.refuse(*fault)
        with pytest.raises(ContainerError):
            start(faulty_engine.engine)
        journal = run.address.directory.joinpath("journal").read_text()
        assert '"service": ' in journal
        assert ('"absent": ' in journal) is sure


class TestInterrupted:
    def test_while_starting(
        self, start: Start, run: Run, docker_engine: Any, faulty_engine: Any
    ) -> None:
        """Ctrl-C while the container starts removes it at once."""
        come = faulty_engine.delay("POST /containers/.*/start", 0.5)
        with interrupted_at(come), pytest.raises(KeyboardInterrupt):
            start(faulty_engine.engine)
        assert of_run(docker_engine, run.id) == []

    def test_while_creating(
        self, start: Start, run: Run, docker_engine: Any, faulty_engine: Any
    ) -> None:
        """Ctrl-C while the engine creates the container leaves nothing after the run."""
        come = faulty_engine.delay("POST /containers/create", 0.3)
        with interrupted_at(come), pytest.raises(KeyboardInterrupt):
            start(faulty_engine.engine)
        run.shut_down()
        assert eventually(lambda: faulty_engine.has_answered("POST /containers/create"))
        assert eventually(lambda: of_run(docker_engine, run.id) == [], 5)

    def test_killed_when_running(self, script: Any, docker_engine: Any) -> None:
        """After `kill -9`, container and volume are gone within 5 seconds."""
        process = script()
        found = json.loads(process.stdout.readline())
        container = docker_engine.containers.get(found["container_id"])
        [volume] = [mount["Name"] for mount in container.attrs["Mounts"]]
        process.kill()
        process.wait()
        assert eventually(lambda: of_run(docker_engine, found["run"]) == [], 5)
        with pytest.raises(NotFound):
            docker_engine.volumes.get(volume)

    @pytest.mark.parametrize("step", ["POST /containers/create", "POST /containers/.*/start"])
    def test_killed_meanwhile(
        self, script: Any, docker_engine: Any, faulty_engine: Any, step: str
    ) -> None:
        """After `kill -9` while the engine is at work, what it made is gone within 5 seconds."""
        come = faulty_engine.delay(step, 0.4)
        process = script(DOCKER_HOST=faulty_engine.engine.url)
        assert come.wait(30)
        process.kill()
        process.wait()
        assert eventually(lambda: faulty_engine.has_answered(step))
        assert eventually(lambda: of_run(docker_engine, process.run_id) == [], 5)


@pytest.fixture
def script(
    engine: Engine, postgres_image: str, docker_engine: docker.DockerClient
) -> Iterator[Any]:
    """Start a process that launches a container in a run of its own and waits."""
    code = textwrap.dedent(
        """
        import json, sys, time
        from cleanroom_runtime._container import launch
        from cleanroom_runtime._engine import find_engine
        from cleanroom_runtime._run import Run, RunAddress
        from cleanroom_runtime._container_spec import ContainerSpec

        address = RunAddress.new()
        run = Run(RunAddress(sys.argv[2], address.root, address.owner))
        spec = ContainerSpec(sys.argv[1], 5432, command=["sleep", "600"])
        endpoint = launch(run, run.new_service_id(), "box", spec, find_engine())
        print(json.dumps({"run": run.id, **endpoint.facts}), flush=True)
        time.sleep(600)
        """
    )
    started = []

    def start(**variables: str) -> Any:
        run_id = f"r{os.urandom(4).hex()}"
        process = subprocess.Popen(
            [sys.executable, "-c", code, postgres_image, run_id],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
        )
        process.run_id = run_id
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
        for container in of_run(docker_engine, process.run_id):
            remove(container.id, engine)


@contextlib.contextmanager
def interrupted_at(event: threading.Event) -> Iterator[None]:
    """Press Ctrl-C when the event is set."""

    def press() -> None:
        assert event.wait(30)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    try:
        yield
    finally:
        thread.join()


class TestAsk:
    def test_state(self, start: Start, engine: Engine, docker_engine: Any) -> None:
        """A container runs, is paused, is killed, is gone."""
        container_id = start().facts["container_id"]
        assert state(container_id, engine) == ContainerState(True, "running")
        docker_engine.containers.get(container_id).pause()
        assert state(container_id, engine) == ContainerState(True, "paused")
        docker_engine.containers.get(container_id).unpause()
        kill(container_id, engine)
        assert eventually(lambda: not state(container_id, engine).running)
        assert state(container_id, engine) == ContainerState(False, "exited", 137)
        kill(container_id, engine)
        remove(container_id, engine)
        assert state(container_id, engine) == ContainerState(False, "gone")
        kill(container_id, engine)

    def test_out_of_memory(self, start: Start, engine: Engine, docker_engine: Any) -> None:
        """A container that was killed for its memory limit says so."""
        on_signal = "trap 'exec tail /dev/zero' USR1; echo set; while :; do sleep 0.1; done"
        endpoint = start(command=["bash", "-c", on_signal], memory=32 * 2**20)
        container_id = endpoint.facts["container_id"]
        assert eventually(lambda: log_tail(container_id, engine, 1) == "set\n")
        docker_engine.containers.get(container_id).kill("SIGUSR1")
        expected = ContainerState(False, "exited", 137, oom_killed=True)
        assert eventually(lambda: state(container_id, engine) == expected, 30)

    def test_log_tail(self, start: Start, engine: Engine) -> None:
        """The last lines of both streams are read; nothing of a container that is gone."""
        lines = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; sleep 600"
        container_id = start(command=["sh", "-c", lines]).facts["container_id"]
        assert eventually(lambda: log_tail(container_id, engine, 100).count("\n") == 6)
        everything = log_tail(container_id, engine, 100).splitlines()
        assert sorted(everything) == ["err 1", "err 2", "err 3", "out 1", "out 2", "out 3"]
        assert log_tail(container_id, engine, 2).splitlines() == everything[-2:]
        remove(container_id, engine)
        assert log_tail(container_id, engine, 2) == ""

    @pytest.mark.parametrize(
        "ask", [state, kill, remove, lambda container, engine: log_tail(container, engine, 1)]
    )
    def test_engine_silent(self, ask: Callable[[str, Engine], object]) -> None:
        """Of an engine that is gone, every question is an error that names it."""
        with pytest.raises(
            ContainerError, match="the engine does not answer: no such socket"
        ) as caught:
            ask("box", Engine("unix:///nowhere/docker.sock", "DOCKER_HOST"))
        assert "unix:///nowhere/docker.sock (from DOCKER_HOST)" in str(caught.value.hint)

    def test_engine_hangs(self, faulty_engine: Any) -> None:
        """An engine that hangs is given up after the time that was set."""
        faulty_engine.delay("GET /containers", 1)
        with pytest.raises(ContainerError, match="does not answer: no answer in time"):
            state("box", faulty_engine.engine, timeout=0.2, service_name="box")

    def test_engine_fails(self, faulty_engine: Any) -> None:
        """An engine's own failure is told in its words."""
        faulty_engine.refuse("GET /containers", 500, "database is locked")
        with pytest.raises(ContainerError, match="answered with status 500: database is locked"):
            state("box", faulty_engine.engine)


class TestRemove:
    def test_with_its_volume(self, start: Start, engine: Engine, docker_engine: Any) -> None:
        """A container goes with its anonymous volume; removing it again is fine."""
        endpoint = start()
        [volume] = [mount["Name"] for mount in inspect(docker_engine, endpoint)["Mounts"]]
        docker_engine.volumes.get(volume)
        remove(endpoint.facts["container_id"], engine)
        with pytest.raises(NotFound):
            docker_engine.containers.get(endpoint.facts["container_id"])
        with pytest.raises(NotFound):
            docker_engine.volumes.get(volume)
        remove(endpoint.facts["container_id"], engine)

    def test_paused(self, start: Start, engine: Engine, docker_engine: Any) -> None:
        """A paused container can be removed."""
        container_id = start().facts["container_id"]
        docker_engine.containers.get(container_id).pause()
        remove(container_id, engine)
        assert state(container_id, engine).status == "gone"

    def test_from_several_sides(self, start: Start, engine: Engine) -> None:
        """Everyone who removes the same container returns when it is gone."""
        container_id = start().facts["container_id"]

        def remove_and_look(_: int) -> str:
            remove(container_id, engine)
            return state(container_id, engine).status

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(remove_and_look, range(4))) == ["gone"] * 4

    def test_refused(self, start: Start, faulty_engine: Any, monkeypatch: Any) -> None:
        """An engine that will not remove it is asked again, then told on in its own words."""
        faulty_engine.refuse("DELETE", 500, "device or resource busy")
        monkeypatch.setattr(_container, "_REMOVAL_TIMEOUT", 0.3)
        with pytest.raises(ContainerError, match="status 500: device or resource busy"):
            remove("box", faulty_engine.engine)
