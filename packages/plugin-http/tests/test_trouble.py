"""A service that does not come up: the error says in which way, and what to do about it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cleanroom import ConfigurationError, ProcessError, ServiceError, StartTimeoutError
from cleanroom_plugin_http import HttpPlugin
from cleanroom_runtime._run import Run
from tests.leftovers import left_of_service

Shop = Callable[..., HttpPlugin]


@pytest.fixture
def ids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the services that a test tries to start."""
    ids: list[str] = []
    new_id = Run.new_service_id

    def note(run: Run) -> str:
        ids.append(new_id(run))
        return ids[-1]

    monkeypatch.setattr(Run, "new_service_id", note)
    return ids


def late(plugin: HttpPlugin, ids: list[str]) -> StartTimeoutError:
    """Return the error of a service that is not ready in time; nothing is left of it."""
    with pytest.raises(StartTimeoutError, match="not ready after 6 s") as caught:
        plugin.start()
    error = caught.value
    assert (error.service, error.backend) == ("api", "process")
    # Its last lines: how it began, unless what it wrote since, each time another thing, is more.
    assert re.search(r"the shop opens|127\.0\.0\.1 - - ", str(error.log_tail))
    assert "start_timeout" in str(error.hint)
    assert ids
    assert [left for each in ids for left in left_of_service(each)] == []
    return error


def test_it_answers_500_for_ever(shop: Shop, ids: list[str]) -> None:
    """The last answer is shown, cut, with what was expected and where to change it."""
    error = late(shop(start_timeout=6).with_health_check("/fail"), ids)
    assert re.search(r"answered 500 .*: 'no database x+\.\.\.'", error.message)
    assert "with_health_check(path, expected)" in str(error.hint)
    # However often it was asked since, and wrote that down.
    assert str(error.log_tail).startswith("the shop opens\n")
    assert re.search(r'"GET /fail.* \(\d+ times\)$', str(error.log_tail), re.MULTILINE)


def test_it_answers_slowly(shop: Shop, ids: list[str]) -> None:
    """The question and its timeout are named, and the setting to raise."""
    error = late(shop(start_timeout=6).with_health_check("/slow", timeout=0.5), ids)
    assert re.search(r"GET http://\S+/slow had no whole answer within 0\.5 s", error.message)
    assert "timeout in the table health" in str(error.hint)


def test_it_answers_something_else(shop: Shop, ids: list[str]) -> None:
    """The answer and what was expected of it stand side by side."""
    error = late(shop(start_timeout=6).with_health_check("/health", "ready"), ids)
    assert "'all is OK here'; expected the text 'ready'" in error.message
    assert "expect = ..." in str(error.hint)


def test_it_redirects_to_nowhere(shop: Shop, ids: list[str]) -> None:
    """Where a redirect has led is named, as it is not the service that is silent."""
    error = late(shop(start_timeout=6).with_health_check("/away"), ids)
    what = r"GET http://\S+/away was redirected \(302 to http://127\.0\.0\.1:9/login\), .*refused"
    assert re.search(what, error.message)
    assert "follow_redirects=False" in str(error.hint)


def test_a_validator_that_hangs(shop: Shop, ids: list[str]) -> None:
    """It has no more time than the start; and a callable that is expected has none more either."""
    over = threading.Event()
    plugin = shop(start_timeout=6).with_health_check("/health")
    with pytest.raises(ServiceError, match=r"validator .*: it did not return within 6\.0 s"):
        plugin.with_validator(lambda _: over.wait(60)).start()
    error = late(plugin.with_health_check("/health", lambda _: over.wait(60)), ids)
    over.set()
    assert re.search(r"expected what \S+ accepts, but it did not return within", error.message)
    assert [left for each in ids for left in left_of_service(each)] == []


def test_it_exits_at_once(shop: Shop, ids: list[str]) -> None:
    """Waiting ends with the service, whose exit code and last words are shown."""
    with pytest.raises(
        ProcessError, match="ended while it was starting, with exit code 1"
    ) as caught:
        shop("--do", "exit", start_timeout=50).start()
    assert caught.value.log_tail == "the shop opens\nno goods"
    assert caught.value.hint
    assert left_of_service(ids[0]) == []


def test_it_listens_on_another_port(shop: Shop, ids: list[str]) -> None:
    """Where it listens is told, where it should have, and how it is told that."""
    error = late(shop("--do", "elsewhere", start_timeout=6), ids)
    told = re.search(r"I listen on (\d+)", str(error.log_tail))
    assert told is not None
    wanted = re.search(r"nothing listens at (127\.0\.0\.1:\d+) ", error.message)
    assert wanted is not None
    hint = f"it listens at 127.0.0.1:{told[1]}, and at {wanted[1]} it was expected"
    assert hint in str(error.hint)
    assert "{port}" in str(error.hint)


def test_it_listens_at_another_address(shop: Shop, ids: list[str]) -> None:
    """The right port at another address is another place."""
    error = late(shop("--host", "127.0.0.2", start_timeout=6), ids)
    assert "nothing listens at 127.0.0.1" in error.message
    assert "it listens at 127.0.0.2:" in str(error.hint)


def test_it_never_listens(shop: Shop, ids: list[str]) -> None:
    """A service that runs and does not listen is told from one that listens elsewhere."""
    error = late(shop("--do", "sleep", start_timeout=6), ids)
    assert "nothing listens at 127.0.0.1" in error.message
    assert "it listens on no port yet" in str(error.hint)


def test_it_speaks_another_language(shop: Shop, ids: list[str]) -> None:
    """An answer that is no HTTP is said to be none."""
    error = late(shop("--do", "gibberish", start_timeout=6), ids)
    assert "closed without an answer in HTTP" in error.message
    assert "220 mail.example" in error.message


def test_it_speaks_tls(shop: Shop, ids: list[str], certificate: Path) -> None:
    """A service that speaks HTTPS, unlike what was said of it, gets a hint to say so."""
    error = late(shop("--certificate", str(certificate), start_timeout=6), ids)
    assert "without an answer in HTTP" in error.message
    assert "with_tls" in str(error.hint)


def test_it_speaks_no_tls(shop: Shop, ids: list[str]) -> None:
    """A service that does not speak HTTPS, unlike what was said of it, gets a hint to say so."""
    error = late(shop(start_timeout=6).with_tls(verify=False), ids)
    assert re.search(r"TLS with 127\.0\.0\.1:\d+ failed", error.message)
    assert "needs no with_tls" in str(error.hint)


def test_its_certificate_is_not_trusted(shop: Shop, ids: list[str], certificate: Path) -> None:
    """A certificate nobody vouches for is refused; the ways out are named."""
    error = late(shop("--certificate", str(certificate), start_timeout=6).with_tls(), ids)
    assert "certificate verify failed" in error.message
    assert "with_tls(ca=...)" in str(error.hint)
    assert "with_tls(verify=False)" in str(error.hint)


def test_its_certificate_is_of_another(
    shop: Shop, ids: list[str], certificate_of_another: Path
) -> None:
    """A trusted certificate that names another host is refused; the hint says what it must name."""
    plugin = shop("--certificate", str(certificate_of_another), start_timeout=6)
    error = late(plugin.with_tls(ca=certificate_of_another), ids)
    assert re.search("not valid for|mismatch|doesn't match", error.message)
    assert "they must name 127.0.0.1" in str(error.hint)


def test_there_is_no_such_program(tmp_path: Path, ids: list[str]) -> None:
    """A program that does not exist is a setting to change, found before anything is started."""
    for name in ("no-such-program-anywhere", "./run.sh", str(tmp_path / "run.sh")):
        with pytest.raises(ConfigurationError, match="is no program here") as caught:
            HttpPlugin("api", command=[name], cwd=tmp_path).start()
        assert name in caught.value.message
        assert caught.value.service == "api"
    assert ids == []


def test_a_program_that_cannot_be_executed(tmp_path: Path, ids: list[str]) -> None:
    """A program the system refuses to run is an error that names it."""
    script = tmp_path / "run.sh"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(ProcessError, match=r"run\.sh could not be executed"):
        HttpPlugin("api", command=["./run.sh"], cwd=tmp_path).start()
    assert left_of_service(ids[0]) == []


def test_there_is_nothing_to_run(no_engine: None) -> None:
    """Without a command and an image, or an engine for it, the error says what to give."""
    with pytest.raises(ServiceError) as caught:
        HttpPlugin("api").start()
    assert "command" in str(caught.value.hint)
    with pytest.raises(ServiceError, match="no container engine answers") as caught:
        HttpPlugin("api", "my-api:1", 8080).start()
    assert "command" in str(caught.value.hint)


def test_nobody_runs_it(command: Callable[..., Sequence[str]]) -> None:
    """A service of somebody else's that is not there is an error that names its address."""
    plugin = HttpPlugin("api", url="http://user:secret@127.0.0.1:9/base", start_timeout=0.3)
    with pytest.raises(StartTimeoutError, match=r"nothing listens at 127\.0\.0\.1:9 ") as caught:
        plugin.start()
    assert "secret" not in str(caught.value)
