"""`cleanroom up`: real services, for a command or until a signal, and nothing left of them."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.leftovers import gone_within, is_running, until

if TYPE_CHECKING:
    import subprocess

    from conftest import Cli, Install, Spawn

BOUND = 15.0
"""Seconds in which a command that was told to end has ended, on a busy machine."""
REDIS = """
    [tool.cleanroom.services.cache]
    plugin = "redis"
    password = "sesame"
"""
COMBINED = (
    REDIS
    + f"""
    [tool.cleanroom.services.api]
    plugin = "http"
    command = [{sys.executable!r}, "-m", "http.server", "--bind", "127.0.0.1", "{{port}}"]
    env = {{ CACHE = "{{cache.url}}" }}
    health = {{ path = "/" }}
    """
)
PRINT_URLS = [
    sys.executable,
    "-c",
    "import os; print(*sorted(f'{k} {v}' for k, v in os.environ.items() if k.endswith('_URL')),"
    " sep='\\n')",
]


def exits_with(code: int) -> list[str]:
    return [sys.executable, "-c", f"raise SystemExit({code})"]


def said_in_json(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait until services are up that were started with `--json`."""
    assert process.stdout
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return json.loads(line)


def run_of(services: dict[str, Any]) -> str:
    """The id of the run that a service is in, by where its log lies."""
    (service, *_) = services["services"].values()
    return Path(service["log"]).parts[-3]


def test_a_command_gets_the_urls(cli: Cli, declare: Callable[[str], None]) -> None:
    """A command has the URL of each service in its environment, password included."""
    declare(COMBINED)
    said = cli("up", "--", *PRINT_URLS)
    assert said.code == 0, said.err
    api, cache, *others = said.out.splitlines()
    assert api.startswith("API_URL http://127.0.0.1:")
    assert cache.startswith("CACHE_URL redis://:sesame@127.0.0.1:")
    assert others == []


def test_progress_in_a_log(cli: Cli, declare: Callable[[str], None]) -> None:
    """Without a terminal progress is plain lines; the table hides passwords, and says so."""
    declare(COMBINED)
    said = cli("up", "--", *exits_with(0))
    lines = said.err.splitlines()
    assert lines[0] == "cache: starting"
    assert lines[1].startswith("cache: ready in ")
    assert lines[2] == "api: starting"
    assert lines[3].startswith("api: ready in ")
    assert lines[4].split() == ["SERVICE", "RUNS", "AS", "URL"]
    assert "redis://:***@127.0.0.1:" in lines[5]
    assert lines[6].startswith("api ")
    assert lines[7] == "Passwords are hidden: --show-secrets shows them."
    assert "sesame" not in said.err


def test_passwords_in_the_table(cli: Cli, declare: Callable[[str], None]) -> None:
    """`--show-secrets` shows them."""
    declare(REDIS)
    assert "redis://:sesame@" in cli("up", "--show-secrets", "--", *exits_with(0)).err


@pytest.mark.parametrize("code", [0, 7])
def test_exit_code_of_the_command(cli: Cli, project: Path, code: int) -> None:
    """The exit code is the command's; `--quiet` leaves the output to the command alone."""
    assert cli("up", "redis", "-q", "--", *exits_with(code)) == (code, "", "")


def test_a_command_that_is_not_there(cli: Cli, project: Path) -> None:
    """A command that cannot be found gives 127, as in a shell."""
    said = cli("up", "redis", "-q", "--", "no-such-program")
    assert said.code == 127
    assert said.err == "Error: no-such-program: No such file or directory\n"


def test_a_command_ended_by_a_signal(cli: Cli, project: Path) -> None:
    """A command that a signal has ended gives 128 and the signal's number, as in a shell."""
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert cli("up", "redis", "-q", "--", sys.executable, "-c", kill).code == 137


def test_signals_reach_the_command(spawn: Spawn, project: Path) -> None:
    """SIGTERM is passed on to the command, whose exit code is told when the services are gone."""
    waits = "import signal, sys; signal.signal(15, lambda *_: sys.exit(9)); print(1, flush=True)"
    command = [sys.executable, "-c", f"{waits}; signal.pause()"]
    process = spawn("up", "redis", "-q", "--", *command)
    assert process.stdout
    assert process.stdout.readline() == "1\n"
    process.terminate()
    assert process.wait(BOUND) == 9


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_until_a_signal(spawn: Spawn, project: Path, number: signal.Signals) -> None:
    """Without a command services run until a signal; then they are gone, and the code is 0."""
    process = spawn("up", "redis", "--json")
    said = said_in_json(process)
    service = said["services"]["redis"]
    assert said["environment"] == {"REDIS_URL": service["url"]}
    assert is_running(int(service["pid"]))
    process.send_signal(number)
    assert process.wait(BOUND) == 0
    assert not is_running(int(service["pid"]))
    gone_within(BOUND, run_of(said))


def test_a_signal_while_starting(
    spawn: Spawn, declare: Callable[[str], None], project: Path
) -> None:
    """Ctrl-C while services start ends the start, removes what there is, and gives 130."""
    # It says that it is waited for. Before that something is imported, and Python itself does not
    # close each file that it reads when it is interrupted there.
    silent = (
        "import pathlib, signal, socket, sys; "
        "listener = socket.create_server(('127.0.0.1', int(sys.argv[1]))); "
        "waiting = listener.accept(); pathlib.Path('begun').touch(); signal.pause()"
    )
    declare(
        f"""
        [tool.cleanroom.services.api]
        plugin = "http"
        command = [{sys.executable!r}, "-c", "{silent}", "{{port}}"]
        """
    )
    process = spawn("up")
    until((project / "begun").exists)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=BOUND)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_closed_pipe(spawn: Spawn, project: Path) -> None:
    """Where nobody reads the table any more, services are stopped, and nothing is said of it."""
    process = spawn("up", "redis", "--quiet", "--json")
    assert process.stdout
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=BOUND)
    assert (process.returncode, err) == (1, "")


def test_a_service_that_dies(spawn: Spawn, project: Path) -> None:
    """While it waits, the command says of a service that it does not work any more."""
    process = spawn("up", "redis", "--json")
    pid = int(said_in_json(process)["services"]["redis"]["pid"])
    os.kill(pid, signal.SIGKILL)
    assert process.stderr
    assert "redis: unhealthy\n" in iter(process.stderr.readline, "")


def test_environment_file(cli: Cli, project: Path) -> None:
    """`--env-file` holds the URLs while the services run, for this user's eyes, and goes then."""
    show = (
        "import os, pathlib; p = pathlib.Path('urls'); print(p.read_text(), oct(p.stat().st_mode))"
    )
    said = cli("up", "redis", "-q", "--env-file", "urls", "--", sys.executable, "-c", show)
    comment, url, mode = said.out.splitlines()
    assert comment.startswith("# Written by `cleanroom up`")
    assert url.startswith("REDIS_URL=redis://")
    assert stat.S_IMODE(int(mode, 8)) == 0o600
    assert list(project.iterdir()) == []


def test_environment_file_of_somebody_else(cli: Cli, project: Path) -> None:
    """A file that is there already is not overwritten, unless an earlier `up` has left it."""
    file = project / ".env"
    file.write_text("MINE=1\n")
    said = cli("up", "redis", "--env-file", ".env", "--", *exits_with(0))
    assert said.code == 1
    assert ".env is there already, and cleanroom has not written it" in said.err
    assert file.read_text() == "MINE=1\n"
    file.write_text("# Written by `cleanroom up`, which removes this file when it ends.\nA=1\n")
    assert cli("up", "redis", "-q", "--env-file", ".env", "--", *exits_with(0)).code == 0
    assert not file.exists()


def test_named_services_bring_what_they_depend_on(cli: Cli, declare: Callable[[str], None]) -> None:
    """Of what is declared only that is started which was named, and what it depends on."""
    declare(COMBINED)
    assert "api: starting" not in cli("up", "cache", "--", *exits_with(0)).err
    assert "cache: ready" in cli("up", "api", "--", *exits_with(0)).err


def test_the_name_of_a_plugin(cli: Cli, declare: Callable[[str], None]) -> None:
    """The name of a plugin stands for what is declared of it."""
    declare(REDIS)
    assert "CACHE_URL" in cli("up", "redis", "-q", "--", *PRINT_URLS).out


def test_an_unknown_service(cli: Cli, declare: Callable[[str], None]) -> None:
    """Of an unknown service the nearest one is named, and nothing is started."""
    declare(REDIS)
    said = cli("up", "cahce")
    assert said.code == 1
    assert said.err.splitlines()[1] == "  hint: did you mean 'cache'?"


def test_a_plugin_that_wants_more_than_a_name(cli: Cli, project: Path) -> None:
    """A plugin without defaults of its own cannot be started by its name alone."""
    said = cli("up", "container")
    assert said.code == 1
    assert 'declare it: [tool.cleanroom.services.NAME], plugin = "container"' in said.err


def test_a_broken_plugin(cli: Cli, install: Install, project: Path) -> None:
    """A broken plugin is named with its distribution; a broken hook is only warned of."""
    install("ape-plugin", plugins={"ape": "ape_plugin:Ape"}, source="import honey_pot")
    install("bee-hooks", hooks={"bee": "bee_hooks"}, source="import honey_pot")
    said = cli("up", "ape")
    assert said.code == 1
    assert "Error: plugin 'ape': failed to load: ModuleNotFoundError" in said.err
    assert "from ape-plugin 1.5" in said.err
    said = cli("up", "redis", "--", *exits_with(0))
    assert said.code == 0
    assert "Warning: plugin 'bee': failed to load" in said.err


def test_two_services_with_one_variable(cli: Cli, declare: Callable[[str], None]) -> None:
    """Two services whose URLs would be in the same variable are refused."""
    declare(REDIS + REDIS.replace("cache", "Cache"))
    said = cli("up")
    assert said.code == 1
    assert "CACHE_URL would be the URL of 'cache' as well" in said.err


def test_a_service_that_cannot_start(cli: Cli, declare: Callable[[str], None]) -> None:
    """A service that fails is told with the end of its log, and the command is not run."""
    declare(
        f"""
        [tool.cleanroom.services.api]
        plugin = "http"
        command = [{sys.executable!r}, "-c", "raise SystemExit('no luck')"]
        """
    )
    said = cli("up", "--", *PRINT_URLS)
    assert (said.code, said.out) == (1, "")
    assert "api: failed" in said.err
    assert "no luck" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("arguments", [["up", "--"], ["up", "--json", "--", "true"]])
def test_wrong_usage(cli: Cli, project: Path, arguments: list[str]) -> None:
    """An empty command, and JSON in the midst of a command's output, are wrong usage."""
    assert cli(*arguments).code == 2


def test_on_a_terminal(
    terminal: Callable[..., tuple[int, str]], declare: Callable[[str], None]
) -> None:
    """On a terminal progress makes way for a table that fits; URLs with passwords stay whole."""
    declare(REDIS + '\n    [tool.cleanroom.services.db]\n    plugin = "postgres"\n')
    code, shown = terminal(["up", "--", *exits_with(3)])
    assert code == 3
    table = shown[shown.rindex("service") :].splitlines()
    assert [line.split()[0] for line in table[:3]] == ["service", "cache", "db"]
    assert max(map(len, table)) <= 80
    assert "starting" in shown
    code, shown = terminal(["up", "db", "--show-secrets", "--", *PRINT_URLS])
    url = shown.splitlines()[-1].removeprefix("DB_URL ")
    assert f"\n  {url}\n" in shown
