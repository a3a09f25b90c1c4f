"""What a service is given in secret shows in no error, whatever it answers or others raise."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import quote, unquote

import pytest
import requests

from cleanroom import CleanroomError, ServiceHandle
from cleanroom_plugin_http import HttpPlugin
from cleanroom_plugin_http._credentials import secrets_of

SECRET = 'hush"<é>&/hush'
AUTHORIZED = {"Authorization": "Bearer hush-hush"}


class _Handler(BaseHTTPRequestHandler):
    """Answers with 500 and what it is asked for, in the way that the first folder says."""

    def do_GET(self) -> None:
        told = {
            "path": self.path,
            "headers": dict(self.headers),
            "basic": self.headers.get("Authorization", "").removeprefix("Basic "),
        }
        answer = {
            "told": json.dumps(told),
            "json": json.dumps({"token": SECRET}),
            "slashes": json.dumps({"token": SECRET}).replace("/", "\\/"),
            "html": html.escape(SECRET),
            "url": quote(SECRET, safe=""),
            "cut": f"{'-' * 295}{SECRET}",
        }.get(self.path.strip("/").partition("?")[0], unquote(self.path))
        self.send_response(500)
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_: object) -> None:
        """Nothing is written."""


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    """Host and port of a service that tells what it knows."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def failing(plugin: HttpPlugin) -> tuple[str, str]:
    """Return the message of the error a start ends in, and all that pytest would show of it."""
    with pytest.raises(CleanroomError) as caught:
        plugin.start()
    shown = caught.getrepr(funcargs=True, style="long", chain=True)
    inner: BaseException | None = caught.value
    texts = [str(shown)]
    while inner is not None:
        texts += [str(inner), repr(inner)]
        inner = inner.__cause__ or inner.__context__
    return caught.value.message, "\n".join(texts)


def plugin_at(url: str, path: str = "/", expected: Any = "OK", **options: Any) -> HttpPlugin:
    plugin = HttpPlugin("api", url=url, env={"API_TOKEN": SECRET}, start_timeout=0.3)
    return plugin.with_health_check(path, expected, **options)


@pytest.mark.parametrize("path", ["/json", "/slashes", "/html", "/url", "/cut"])
def test_a_secret_in_an_answer(place: str, path: str) -> None:
    """It is hidden as JSON, HTML and URLs write it, and where a long answer is cut."""
    message, shown = failing(plugin_at(f"http://{place}", path))
    assert "answered 500" in message
    assert "**" in message
    assert "hush" not in shown


@pytest.mark.parametrize(
    ("user", "secrets"),
    [
        ("me:pass-word@", ["pass-word", base64.b64encode(b"me:pass-word").decode()]),
        ("token-of-mine@", ["token-of-mine", base64.b64encode(b"token-of-mine:").decode()]),
    ],
)
def test_credentials_in_the_url(place: str, user: str, secrets: list[str]) -> None:
    """What stands before the host is hidden, also as it is sent."""
    message, shown = failing(plugin_at(f"http://{user}{place}", "/told"))
    assert "answered 500" in message
    assert not [secret for secret in secrets if secret in shown]
    message, shown = failing(plugin_at(f"http://{user}127.0.0.1:9"))
    assert "nothing listens at 127.0.0.1:9" in message
    assert not [secret for secret in secrets if secret in shown]


def test_secrets_in_the_path(place: str) -> None:
    """A parameter that is secret by its name is hidden where it is asked for, and in the answer."""
    path = "/told?token=hush%2Fhush&page=7&api_key=quietly"
    message, shown = failing(plugin_at(f"http://{place}", path))
    assert "/told?token=***&page=7&api_key=*** answered 500" in message
    for secret in ("hush", "quietly"):
        assert secret not in shown
    _, shown = failing(plugin_at("http://127.0.0.1:9", path))
    assert "hush" not in shown


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://{place}"])
def test_headers_in_tracebacks(place: str, url: str) -> None:
    """The arguments of functions, which pytest shows, do not show them."""
    plugin = plugin_at(url.format(place=place), headers=AUTHORIZED)
    assert "hush-hush" not in failing(plugin)[1]


def refuses(_: object) -> None:
    text = json.dumps({"token": SECRET})
    raise AssertionError(f"no {text}")


def fails_inside(_: object) -> None:
    try:
        raise KeyError(SECRET)
    except KeyError as exc:
        raise requests.ConnectionError(f"no way to http://a:{SECRET}@h") from exc


@pytest.mark.parametrize("how", ["expected", "validator"])
@pytest.mark.parametrize(
    ("raises", "kinds"),
    [(refuses, ["AssertionError: no"]), (fails_inside, ["ConnectionError: no way", "KeyError: "])],
)
def test_what_callables_raise(
    place: str, how: str, raises: Callable[[object], None], kinds: list[str]
) -> None:
    """What a callable raises says the same without the secret, with its type and traceback."""
    if how == "expected":
        plugin = plugin_at(f"http://{place}", "/", raises)
    else:
        plugin = plugin_at(f"http://{place}", "/", 500).with_validator(raises)
    message, shown = failing(plugin)
    assert f"raised {kinds[0]}" in message
    assert f"def {raises.__name__}" in shown
    assert "hush" not in shown
    for kind in kinds:
        assert kind in shown


@pytest.mark.parametrize(
    ("headers", "secrets"),
    [
        ({"X-Forwarded-Proto": "http", "X-T": "a b", "X-Author": "Bob Smith"}, []),
        ({"Accept": "application/json", "Origin": "http://localhost"}, []),
        ({"Cookie": "debug=1"}, ["debug=1"]),
        ({"Cookie": "debug=1; sid=of-mine"}, ["debug=1; sid=of-mine", "sid=of-mine", "of-mine"]),
        ({"Authorization": "Bearer x"}, ["Bearer x"]),
        ({"authorization": "Bearer of-mine"}, ["Bearer of-mine", "of-mine"]),
        ({"Proxy-Authorization": "Token of-mine"}, ["Token of-mine", "of-mine"]),
        (
            {"Authorization": "Basic dXNlcjpwYXNzLXdvcmQ="},
            ["Basic dXNlcjpwYXNzLXdvcmQ=", "dXNlcjpwYXNzLXdvcmQ=", "pass-word"],
        ),
        ({"X-Api-Key": "of-mine"}, ["of-mine"]),
        ({"X-CSRF": "of-mine", "X-Auth": "on"}, ["of-mine"]),
    ],
)
def test_which_headers_are_secret(headers: Mapping[str, str], secrets: list[str]) -> None:
    """Those that carry credentials by their names, and pieces of them that are long enough."""
    assert [*secrets_of("/", headers)] == secrets


def test_other_headers_hide_nothing(place: str) -> None:
    """What a harmless header has in it is shown where it is a part of something else."""
    headers = {"X-Forwarded-Proto": "http", "X-T": "a b", "Cookie": "debug=1"}
    message, _ = failing(plugin_at(f"http://{place}", "/bob1", headers=headers))
    assert f"GET http://{place}/bob1 answered 500 Internal Server Error: '/bob1'" in message


def test_the_handle_of_a_service_with_credentials(place: str) -> None:
    """Its repr shows none."""
    handle = ServiceHandle("r1-s1", "api", {"url": f"http://token-of-mine@{place}"})
    assert "token-of-mine" not in repr(handle)
