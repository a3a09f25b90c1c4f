"""What counts as the right answer, and what is said of any other one."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from cleanroom import (
    CleanroomEnvironment,
    ConfigurationError,
    HealthStatus,
    ServiceError,
    ServiceHandle,
    ValidationError,
)
from cleanroom_plugin_http import HttpPlugin

Ask = Callable[..., None]


@pytest.fixture
def ask(running: ServiceHandle) -> Ask:
    """Asks the service a question; raises where the answer is not the one that was expected."""

    def ask(*arguments: object, **options: object) -> None:
        plugin = HttpPlugin("api", command=["true"])
        plugin.with_health_check(*arguments, **options).probe(running.metadata, 10)  # type: ignore[arg-type]

    return ask


def accepts(response: requests.Response) -> None:
    assert response.json()["count"] == 1
    assert response.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/health", "OK"),
        ("/health", None),
        ("/empty", None),
        ("/health", 200),
        ("/teapot", 418),
        ("/fail", 500),
        ("/plain", "schön"),
        ("/latin", "schön"),
        ("/odd", "OK"),
        ("/health", re.compile(r"^all\b.*here$")),
        ("/json", {}),
        ("/json", {"status": "ok"}),
        ("/json", {"checks": [{"up": True}], "count": 1}),
        ("/list", ["a", {"b": 1}]),
        ("/json", accepts),
        ("/teapot", lambda response: response.status_code == 418),
        ("/json", lambda response: None),
        ("/echo?a=1&b=2", {"path": "/echo?a=1&b=2", "method": "GET"}),
        ("/flood", "OK"),
    ],
)
def test_right_answers(ask: Ask, path: str, expected: object) -> None:
    """Status, text, pattern, part of JSON, list and callable, each with an answer that fits."""
    ask(path, expected)


@pytest.mark.parametrize(
    ("path", "expected", "says"),
    [
        ("/json", "OK", r"'\{\"status\": .* expected the text 'OK'"),
        ("/teapot", None, "418 .*: 'short and stout'; expected a status below 400"),
        ("/teapot", "stout", "expected a status below 400"),
        ("/health", 204, "200 OK: 'all is OK here'; expected status 204"),
        ("/empty", "OK", "204 No Content: 'an empty body'; expected the text 'OK'"),
        ("/health", re.compile("^OK"), r"expected a match of '\^OK'"),
        ("/json", {"status": "down"}, r"expected JSON with \{'status': 'down'\}"),
        ("/json", {"missing": None}, "expected JSON with"),
        ("/json", {"count": True}, "expected JSON with"),
        ("/json", {"checks": []}, "expected JSON with"),
        ("/json", ["status"], "expected JSON with"),
        ("/list", ["a"], "expected JSON with"),
        ("/list", {"a": 1}, "expected JSON with"),
        ("/broken", {"status": "ok"}, "expected JSON"),
        ("/health", {"status": "ok"}, "expected JSON"),
        ("/list", accepts, "expected what accepts accepts, which raised TypeError: list indices"),
        ("/health", lambda response: False, "expected what .*<lambda> accepts"),
    ],
)
def test_wrong_answers(ask: Ask, path: str, expected: object, says: str) -> None:
    """Any other answer is an error that shows it, what was expected, and how to change that."""
    with pytest.raises(ServiceError, match=says) as caught:
        ask(path, expected)
    assert "GET http://127.0.0.1:" in caught.value.message
    assert "with_health_check" in str(caught.value.hint)
    assert "expect" in str(caught.value.hint)


def test_long_answers_are_cut(ask: Ask) -> None:
    """Of a long answer only the beginning is shown."""
    with pytest.raises(ServiceError, match=r"500 .*: 'no database x+\.\.\.'; expected") as caught:
        ask("/fail", "OK")
    assert len(caught.value.message) < 600


def test_redirects(ask: Ask) -> None:
    """A redirect is followed, unless it is the answer itself; a circle is an error."""
    ask("/moved", "OK")
    ask("/moved", 302, follow_redirects=False)
    with pytest.raises(ServiceError, match="answered 200"):
        ask("/moved", 302)
    with pytest.raises(ServiceError, match="from redirect to redirect") as caught:
        ask("/circle", "OK")
    assert "follow_redirects" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/away", r"302 to http://127\.0\.0\.1:9/login\), and that has failed: ConnectionRefused"),
        ("/to/slow", r"307 to http://\S+:\d+/slow\), with no whole answer within 0\.4 s"),
        ("/to/drip", r"307 to http://\S+:\d+/drip\), with no whole answer within 0\.4 s"),
        ("/malformed", r"302 to http://\[nowhere/login\?token=\*\*\*\), and that has failed: Val"),
        ("/ftp", r"302 to ftp://127\.0\.0\.1/login\), and that has failed: InvalidSchema"),
        ("/to/fail", r"307 to http://\S+:\d+/fail\), which answered 500 .*: 'no database"),
        ("/to/to/teapot", r"307 to http://\S+/to/teapot, 307 to http://\S+/teapot\), which answ"),
        (
            "/to/to/to/to/json",
            r"\(307 to http://\S+/to/to/to/json, \.\.\., 307 to http://\S+/json\)",
        ),
        ("/to/zipped", r"307 to http://\S+/zipped\): the body of the answer is not encoded as"),
        (
            "/circle",
            r"redirect to redirect \(302 to http://\S+/circle, \.\.\., 302 to http://\S+/circle\); "
            r"the last answer of 31 is 302 Found: 'round and round'",
        ),
    ],
)
def test_redirects_that_lead_to_trouble(ask: Ask, path: str, says: str) -> None:
    """The error names what was asked, the first status, where it led, and what was met there."""
    with pytest.raises(ServiceError, match=says) as caught:
        ask(path, "OK", timeout=2 if path == "/circle" else 0.4)
    assert re.match(rf"GET http://127\.0\.0\.1:\d+{path} ", caught.value.message)
    if "answered" not in caught.value.message:
        assert re.search("follow_redirects|Accept-Encoding", str(caught.value.hint))


def test_a_body_that_is_not_encoded_as_it_says(ask: Ask) -> None:
    """The error names the header, and the hint how to do without it."""
    with pytest.raises(
        ServiceError, match=r"/zipped: the body .* Content-Encoding: gzip"
    ) as caught:
        ask("/zipped", "OK")
    assert "Accept-Encoding" in str(caught.value.hint)


def test_headers(ask: Ask) -> None:
    """Headers are sent along, and their values show nowhere."""
    ask("/private", "OK", headers={"X-Key": "secret key"})
    with pytest.raises(ServiceError, match="401") as caught:
        ask("/private", "OK", headers={"X-Key": "secret of another"})
    assert "secret" not in str(caught.value)
    plugin = HttpPlugin("api", command=["x"], env={"A": "secret"})
    plugin = plugin.with_health_check("/", headers={"X-Key": "secret"})
    assert "secret" not in repr(plugin)
    assert "secret" not in repr(plugin._health)


@pytest.mark.parametrize("path", ["/slow", "/drip"])
def test_slow_answers(ask: Ask, path: str) -> None:
    """An answer has to be whole in time, however it comes; the error names the setting."""
    began = time.monotonic()
    with pytest.raises(ServiceError, match=r"had no whole answer within 0\.3 s") as caught:
        ask(path, "OK", timeout=0.3)
    assert time.monotonic() - began < 2
    assert path in caught.value.message
    assert "timeout" in str(caught.value.hint)


# ----------------------------------------------------------------------- validators


def test_validators(start: Callable[..., ServiceHandle], shop: Callable[..., HttpPlugin]) -> None:
    """Validators are asked once the service is ready, and each time how it is, with the handle."""
    seen: list[ServiceHandle] = []
    fits = [True]

    def validate(handle: ServiceHandle) -> bool:
        seen.append(handle)
        assert requests.get(f"{handle.url}/json", timeout=5).json()["status"] == "ok"
        return fits[0]

    plugin = shop().with_health_check().with_validator(validate).with_validator(lambda handle: None)
    handle = start(plugin)
    assert [each.id for each in seen] == [handle.id]
    assert seen[0].url == handle.url
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    assert [each.id for each in seen] == [handle.id] * 2
    fits[0] = False
    assert plugin.health_check(handle) is HealthStatus.UNHEALTHY


def refuse(handle: ServiceHandle) -> bool:
    return False


def fail(handle: ServiceHandle) -> bool:
    raise AssertionError("the schema is of last year")


def object_to(handle: ServiceHandle) -> bool:
    raise ServiceError("too old", hint="take a newer one")


@pytest.mark.parametrize(
    ("validator", "says"),
    [
        (refuse, "validator refuse returned False"),
        (fail, "validator fail raised AssertionError: the schema is of last year"),
        (object_to, "too old"),
    ],
)
def test_validators_that_object(
    shop: Callable[..., HttpPlugin], validator: Callable[[ServiceHandle], bool], says: str
) -> None:
    """What a validator finds wrong ends the start at once, with the log."""
    began = time.monotonic()
    with pytest.raises(ServiceError, match=says) as caught:
        shop(start_timeout=50.0).with_health_check().with_validator(validator).start()
    assert time.monotonic() - began < 20
    assert "the shop opens" in str(caught.value.log_tail)
    assert (caught.value.service, caught.value.backend) == ("api", "process")


def test_a_callable_that_needs_long(
    start: Callable[..., ServiceHandle], shop: Callable[..., HttpPlugin]
) -> None:
    """A callable that is expected has what is left of the start, however many seconds it needs;
    the request has its own timeout."""
    began = time.monotonic()
    plugin = shop(start_timeout=30.0).with_health_check(expected=lambda _: time.sleep(6))
    start(plugin)
    assert 6 < time.monotonic() - began < 11


def test_an_answer_that_needs_long(start: Callable[..., ServiceHandle], tmp_path: Path) -> None:
    """A request may take as long as its timeout says, also where that is long."""
    serve = (
        "import time; from http import server as s\n"
        "class H(s.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): time.sleep(6); self.send_error(404, 'OK')\n"
        "s.ThreadingHTTPServer(('{host}', {port}), H).serve_forever()"
    )
    plugin = HttpPlugin("api", command=[sys.executable, "-c", serve], start_timeout=30.0)
    start(plugin.with_health_check("/", 404, timeout=20))


@pytest.mark.parametrize("how", ["validator", "expected"])
def test_callables_that_end_more_than_the_question(
    shop: Callable[..., HttpPlugin], how: str
) -> None:
    """What ends the test, as `pytest.fail` does, or the program, does that at once."""

    def end(_: object) -> None:
        pytest.fail("not like this")

    plugin = shop(start_timeout=50.0).with_health_check(expected=end if how == "expected" else None)
    began = time.monotonic()
    with pytest.raises(pytest.fail.Exception, match="not like this"):
        (plugin.with_validator(end) if how == "validator" else plugin).start()
    assert time.monotonic() - began < 20


# --------------------------------------------------------------------------- health


def test_health_checks_that_end_more_than_the_question(
    start: Callable[..., ServiceHandle], shop: Callable[..., HttpPlugin]
) -> None:
    """A health check raises nothing, whatever a validator does."""
    ends = [False]

    def validator(_: ServiceHandle) -> None:
        if ends[0]:
            sys.exit("enough")

    plugin = shop().with_health_check().with_validator(validator)
    handle = start(plugin)
    ends[0] = True
    assert plugin.health_check(handle) is HealthStatus.UNHEALTHY


def test_health_follows_the_answer(
    start: Callable[..., ServiceHandle], shop: Callable[..., HttpPlugin], tmp_path: Path
) -> None:
    """A service is healthy as long as it gives the right answer."""
    plugin = shop(cwd=tmp_path).with_health_check("/state")
    handle = start(plugin)
    assert plugin.health_check(handle) is HealthStatus.HEALTHY
    (tmp_path / "broken").touch()
    assert plugin.health_check(handle) is HealthStatus.UNHEALTHY
    (tmp_path / "broken").unlink()
    assert plugin.health_check(handle) is HealthStatus.HEALTHY


def test_without_a_health_check(
    start: Callable[..., ServiceHandle], shop: Callable[..., HttpPlugin]
) -> None:
    """Where none is set, a service that answers at all, and not with 5xx, is ready."""
    handle = start(shop())
    assert requests.get(handle.url, timeout=5).status_code == 404


# --------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": "health"}, "path"),
        ({"path": "/a b"}, "path"),
        ({"path": "/a#b"}, "path"),
        ({"expected": True}, "expected"),
        ({"expected": 20}, "expected"),
        ({"expected": 1.5}, "expected"),
        ({"expected": re.compile(b"up")}, "expected"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"headers": {"a b": "x"}}, "headers has the key 'a b'"),
        ({"headers": {"A": "x\ny"}}, "headers has no text of one line for A"),
        ({"headers": {"A": "\u20ac"}}, "headers has other characters for A"),
        ({"headers": ["A"]}, "headers"),
        ({"follow_redirects": "no"}, "follow_redirects"),
    ],
)
def test_health_checks_that_cannot_be(options: dict[str, object], says: str) -> None:
    """A malformed health check is refused, and the error names what is wrong with it."""
    with pytest.raises(ValidationError, match=says):
        HttpPlugin("api", command=["x"]).with_health_check(**options)  # type: ignore[arg-type]


def test_validator_that_asks_the_environment(shop: Callable[..., HttpPlugin]) -> None:
    """It is part of the start that it was called by: what it may not ask for there is refused."""
    environment = CleanroomEnvironment()
    refused: list[str] = []

    def validator(handle: ServiceHandle) -> None:
        try:
            environment.start("other")
        except ConfigurationError as exc:
            refused.append(exc.message)

    with environment as env:
        env.register(shop().with_health_check().with_validator(validator))
        env.register(HttpPlugin("other", command=["x"]))
        env.start("api")
    assert refused == ["'other' was asked for by a start"]


def test_a_validator_is_callable() -> None:
    """What cannot be called is no validator."""
    with pytest.raises(ValidationError, match="validator is 'OK'"):
        HttpPlugin("api", command=["x"]).with_validator("OK")  # type: ignore[arg-type]
