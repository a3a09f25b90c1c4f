"""Engines that are not simply on this machine, and tests that are not simply beside them."""

import json
import os
import shutil
import ssl
import subprocess
import sys
import sysconfig
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

import cleanroom
import cleanroom_runtime
from cleanroom import ContainerError
from cleanroom_runtime._container import kill, launch, log_tail, remove, state
from cleanroom_runtime._container_spec import ContainerSpec
from cleanroom_runtime._engine import Engine
from cleanroom_runtime._run import Run
from cleanroom_runtime._warden._containers import OWNER_LABEL, RUN_LABEL
from tests.leftovers import gone_within


def of_run(client: docker.DockerClient, run_id: str) -> list[Any]:
    label = {"label": f"{RUN_LABEL}={run_id}"}
    return client.containers.list(all=True, filters=label, ignore_removed=True)


def whole_life(run: Run, engine: Engine, image: str, client: docker.DockerClient) -> None:
    """Everything there is to do with a container, by whatever way leads to the engine."""
    spec = ContainerSpec(image, 5432, command=["sh", "-c", "echo hello; sleep 600"])
    service_id = run.new_service_id()
    container_id = launch(run, service_id, "box", spec, engine).facts["container_id"]
    assert state(container_id, engine, timeout=20).running
    deadline = time.monotonic() + 10
    while log_tail(container_id, engine, 10) != "hello\n":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kill(container_id, engine)
    remove(container_id, engine)
    assert state(container_id, engine, timeout=20).status == "gone"
    run.request("stop", id=service_id)
    launch(run, run.new_service_id(), "box", spec, engine)
    assert len(of_run(client, run.id)) == 1
    run.shut_down()
    assert of_run(client, run.id) == []


class TestRemote:
    def test_plain_tcp(
        self, run: Run, relay: Any, postgres_image: str, docker_engine: docker.DockerClient
    ) -> None:
        """An engine is used over TCP, and the warden cleans up there."""
        whole_life(run, relay(("127.0.0.1", 0)).engine, postgres_image, docker_engine)

    @pytest.mark.skipif(sys.platform != "linux", reason="the engine runs in a virtual machine")
    def test_address_of_the_engine(
        self,
        run: Run,
        engine: Engine,
        relay: Any,
        postgres_image: str,
        docker_engine: docker.DockerClient,
    ) -> None:
        """What a remote engine publishes is reached at the engine's address."""
        spec = ContainerSpec(postgres_image, 5432, command=["sleep", "600"])
        service_id = run.new_service_id()
        launch(run, service_id, "box", spec, engine)
        [container] = of_run(docker_engine, run.id)
        address = container.attrs["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
        container.remove(force=True, v=True)
        run.request("stop", id=service_id)
        remote = relay((address, 0)).engine
        assert not remote.local
        endpoint = launch(run, run.new_service_id(), "box", spec, remote)
        [container] = of_run(docker_engine, run.id)
        bindings = container.ports["5432/tcp"]
        assert {"HostIp": "0.0.0.0", "HostPort": str(endpoint.port)} in bindings
        assert endpoint.host == address

    def test_tls(
        self,
        run: Run,
        relay: Any,
        certificates: Path,
        postgres_image: str,
        docker_engine: docker.DockerClient,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """An engine is used by TLS with a certificate of the client's, by the warden too."""
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates / "cert.pem"))
        server = relay(("127.0.0.1", 0), tls=server_context(certificates))
        engine = Engine(server.engine.url, "a test", tls=True, certificates=str(certificates))
        whole_life(run, engine, postgres_image, docker_engine)

    def test_tls_that_is_not_to_be_trusted(
        self, run: Run, relay: Any, certificates: Path, postgres_image: str, tmp_path: Path
    ) -> None:
        """An engine whose certificate is signed by somebody else is not used."""
        server = relay(("127.0.0.1", 0), tls=server_context(certificates))
        other = make_certificates(tmp_path / "other")
        engine = Engine(server.engine.url, "a test", tls=True, certificates=str(other))
        spec = ContainerSpec(postgres_image, 5432)
        with pytest.raises(ContainerError, match="certificate verify failed"):
            launch(run, run.new_service_id(), "box", spec, engine)
        with pytest.raises(ContainerError, match="certificate verify failed"):
            state("box", engine)

    @pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command")
    def test_ssh(
        self,
        run: Run,
        short_folder: Path,
        postgres_image: str,
        docker_engine: docker.DockerClient,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """An engine is used by ssh, by the warden too."""
        # What sshd would do with the command, without sshd.
        program = short_folder / "ssh"
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {short_folder}/log\nexec docker system dial-stdio\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{short_folder}{os.pathsep}{os.environ['PATH']}")
        engine = Engine("ssh://me@localhost:2222", "a test")
        whole_life(run, engine, postgres_image, docker_engine)
        for line in (short_folder / "log").read_text().splitlines():
            assert "-l me -p 2222" in line
            assert line.endswith(" localhost docker system dial-stdio")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, and a key and certificate that serve both sides."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def make_certificates(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    name = ["-addext", "subjectAltName=IP:127.0.0.1"]
    authority = ["-subj", "/CN=authority", "-keyout", "ca-key.pem", "-out", "ca.pem"]
    signed = ["-subj", "/CN=engine", "-keyout", "key.pem", "-out", "cert.pem"]
    signer = ["-CA", "ca.pem", "-CAkey", "ca-key.pem"]
    for arguments in ([*new_key, *authority], [*new_key, *signed, *signer, *name]):
        subprocess.run(
            ["openssl", "req", "-x509", *arguments], cwd=folder, check=True, capture_output=True
        )
    return folder


def server_context(certificates: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # no more than an engine asks for
    return context


INSIDE = textwrap.dedent(
    """
    import json, signal, socket, sys, time
    from cleanroom import ContainerError
    from cleanroom_runtime._container import launch
    from cleanroom_runtime._engine import find_engine
    from cleanroom_runtime._run import current_run
    from cleanroom_runtime._container_spec import ContainerSpec

    def answers(endpoint):
        try:
            with socket.create_connection((endpoint.host, endpoint.port), 2) as sock:
                sock.sendall((8).to_bytes(4, "big") + (80877103).to_bytes(4, "big"))
                return sock.recv(1) in (b"N", b"S")
        except OSError:
            return False

    def together():
        "Let a further container ask for the database, and for what listens in this one."
        from cleanroom import ServiceHandle
        from cleanroom_runtime._container import log_tail
        from cleanroom_runtime._view import seen_from_container

        engine, asked = find_engine(), []
        database = {"host": endpoint.host, "port": str(endpoint.port)}
        database |= {"backend": "container", **endpoint.facts}
        with socket.create_server(("127.0.0.1", 0)) as listener:
            beside = {"host": "127.0.0.1", "port": str(listener.getsockname()[1])}
            for name, facts in (("db", database), ("beside", beside)):
                handle = ServiceHandle(f"{run.id}-{name}", name, facts)
                seen = seen_from_container(handle, engine, run)
                asked.append((seen.host, seen.port))
            ask = "".join(f"pg_isready -t 20 -h {host} -p {port}; " for host, port in asked)
            command = ["sh", "-c", ask + "sleep 600"]
            spec = ContainerSpec(sys.argv[1], 5432, command=command)
            asking = launch(run, run.new_service_id(), "asking", spec, engine)
            listener.settimeout(30)
            with listener.accept()[0] as connection:
                heard = len(connection.recv(8))
        log = log_tail(asking.facts["container_id"], engine, 10)
        return {"heard": heard, "log": log, "asked": asked}

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    run = current_run()
    environment = {"POSTGRES_PASSWORD": "hush", "POSTGRES_INITDB_ARGS": "--no-sync"}
    memory = {"/var/lib/postgresql/data": "rw"}
    spec = ContainerSpec(sys.argv[1], 5432, env=environment, tmpfs=memory)
    try:
        endpoint = launch(run, f"{run.id}-db", "db", spec, find_engine())
    except ContainerError as exc:
        print(json.dumps({"error": str(exc)}), flush=True)
        sys.exit()
    deadline = time.monotonic() + 60
    while not answers(endpoint) and time.monotonic() < deadline:
        time.sleep(0.05)
    found = {"host": endpoint.host, "port": endpoint.port, "answers": answers(endpoint)}
    if "together" in sys.argv:
        found |= together()
    print(json.dumps({"run": run.id, **found}), flush=True)
    signal.sigwait([signal.SIGUSR1])
    run.shut_down()
    """
)


class TestInside:
    """This process is itself in a container that has the engine's socket."""

    @pytest.mark.parametrize("options", [{}, {"hostname": "tests"}], ids=["plain", "hostname"])
    def test_default_network(
        self, inside: Any, docker_engine: docker.DockerClient, options: dict[str, Any]
    ) -> None:
        """The service is reached at its own address, and no port is published."""
        mine = inside(**options)
        assert mine.found["answers"], mine.found
        [service] = of_run(docker_engine, mine.found["run"])
        assert mine.found["host"] == address_in(service, "bridge")
        assert mine.found["port"] == 5432
        assert not any(service.ports.values())
        mine.end()
        assert of_run(docker_engine, mine.found["run"]) == []

    def test_network_of_its_own(
        self, network: Any, inside: Any, docker_engine: docker.DockerClient
    ) -> None:
        """The service joins the tests' network, in which others reach it, and the tests."""
        mine = inside("together", network=network.name)
        assert mine.found["answers"], mine.found
        [_, service] = of_run(docker_engine, mine.found["run"])
        mine.container.reload()
        here, there = (address_in(each, network.name) for each in (mine.container, service))
        assert mine.found["host"] == there
        assert not any(service.ports.values())
        assert_together(mine, there, here)
        assert networks_of(docker_engine, mine.found["run"]) == []
        mine.end()
        gone_within(10, mine.found["run"], engine=True)

    def test_network_of_another(
        self, network: Any, inside: Any, postgres_image: str, docker_engine: docker.DockerClient
    ) -> None:
        """A container that shares the network of another reaches its services as well."""
        other = docker_engine.containers.run(
            postgres_image, ["sleep", "600"], network=network.name, detach=True
        )
        try:
            mine = inside(network_mode=f"container:{other.id}")
            assert mine.found["answers"], mine.found
            [service] = of_run(docker_engine, mine.found["run"])
            assert mine.found["host"] == address_in(service, network.name)
            mine.end()
        finally:
            other.remove(force=True, v=True)

    def test_network_of_the_host(self, inside: Any, docker_engine: docker.DockerClient) -> None:
        """With the network of the host, 127.0.0.1 is where ports are published."""
        mine = inside("together", network_mode="host")
        assert mine.found["answers"], mine.found
        [_, service] = of_run(docker_engine, mine.found["run"])
        assert mine.found["host"] == "127.0.0.1"
        assert service.ports["5432/tcp"] == [
            {"HostIp": "127.0.0.1", "HostPort": str(mine.found["port"])}
        ]
        # Nobody could tell it from being on the host, so containers have a network of the run's.
        [made] = networks_of(docker_engine, mine.found["run"])
        assert made.attrs["Labels"][OWNER_LABEL] == mine.container.id
        gateway = made.attrs["IPAM"]["Config"][0]["Gateway"]
        assert_together(mine, f"{mine.found['run']}-db", gateway)
        mine.end()
        gone_within(10, mine.found["run"], engine=True)

    def test_no_network(self, inside: Any) -> None:
        """Without a network no service can be reached, and the error says so."""
        mine = inside(network_mode="none")
        assert "from which no other can be reached" in mine.found["error"]
        assert "hint: run that container on a bridge network" in mine.found["error"]

    def test_left_behind(
        self,
        inside: Any,
        run: Run,
        engine: Engine,
        postgres_image: str,
        docker_engine: docker.DockerClient,
    ) -> None:
        """What a killed container has left behind is removed by the next run on the engine."""
        killed, alive = inside(), inside()
        [left] = of_run(docker_engine, killed.found["run"])
        assert left.labels[OWNER_LABEL] == killed.container.id
        killed.container.kill()
        code = (
            "import sys; from cleanroom_runtime._stale import sweep; "
            "from cleanroom_runtime._engine import find_engine; sweep(find_engine())"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
        assert of_run(docker_engine, killed.found["run"]) == []
        assert len(of_run(docker_engine, alive.found["run"])) == 1


def assert_together(mine: Any, there: str, here: str) -> None:
    """A further container has reached the database there, and what listens in the tests' here."""
    assert [host for host, _ in mine.found["asked"]] == [there, here], mine.found
    assert mine.found["log"].startswith(f"{there}:5432 - accepting connections"), mine.found
    assert mine.found["heard"] == 8, mine.found


def networks_of(client: docker.DockerClient, run_id: str) -> list[Any]:
    return client.networks.list(filters={"label": f"{RUN_LABEL}={run_id}"})


def address_in(container: Any, network: str) -> str:
    return container.attrs["NetworkSettings"]["Networks"][network]["IPAddress"]


@pytest.fixture
def network(docker_engine: docker.DockerClient) -> Iterator[Any]:
    """A network of its own."""
    network = docker_engine.networks.create(f"cleanroom-test-{os.urandom(4).hex()}")
    yield network
    network.remove()


class Inside:
    """The script INSIDE, running in a container with this machine's Python."""

    def __init__(self, container: Any) -> None:
        self.container = container
        self.found: dict[str, Any] = {}
        container.start()
        while not self.found:
            container.reload()
            over = container.status == "exited"
            lines = container.logs().splitlines()
            if lines and lines[-1].startswith(b"{"):
                self.found = json.loads(lines[-1])
            elif over:
                raise AssertionError(b"\n".join(lines).decode())
            time.sleep(0.05)

    def end(self) -> None:
        self.container.kill("SIGUSR1")
        self.container.wait(timeout=30)


@pytest.fixture
def inside(
    engine: Engine, postgres_image: str, docker_engine: docker.DockerClient
) -> Iterator[Callable[..., Inside]]:
    """Run the script in a container which is given the engine's socket."""
    if sys.platform != "linux" or not engine.url.startswith("unix://"):
        pytest.skip("the engine runs in another machine than this Python")
    socket_path = engine.url.removeprefix("unix://")
    sources = [
        str(Path(module.__file__ or "").parents[1]) for module in (cleanroom, cleanroom_runtime)
    ]
    folders = ["/usr", "/lib", "/lib64", sys.prefix, sys.base_prefix, *sources]
    volumes = {
        os.path.realpath(folder): {"bind": folder, "mode": "ro"}
        for folder in dict.fromkeys(folders)
        if os.path.isdir(folder) and not folder.startswith("/usr/")
    }
    volumes[socket_path] = {"bind": "/var/run/docker.sock", "mode": "rw"}
    started: list[Inside] = []

    def start(*arguments: str, **options: Any) -> Inside:
        container = docker_engine.containers.create(
            postgres_image,
            ["-c", INSIDE, postgres_image, *arguments],
            entrypoint=[sys.executable],
            environment={
                "PYTHONPATH": os.pathsep.join([*sources, sysconfig.get_path("purelib")]),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            volumes=volumes,
            **options,
        )
        try:
            started.append(Inside(container))
        except BaseException:
            container.remove(force=True, v=True)
            raise
        return started[-1]

    yield start
    for one in started:
        run_id = one.found.get("run")
        remove(one.container.id, engine)
        for container in of_run(docker_engine, run_id) if run_id else []:
            remove(container.id, engine)
