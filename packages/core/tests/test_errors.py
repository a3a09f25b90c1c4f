from __future__ import annotations

import inspect
import logging
import pickle
import time

import pytest

import cleanroom
from cleanroom import (
    CleanroomError,
    ConfigurationError,
    ContainerError,
    InternalError,
    PluginError,
    ProcessError,
    ServiceError,
    StartTimeoutError,
    ValidationError,
)
from cleanroom._errors import log_failure, nearest

ALL = [value for value in vars(cleanroom).values() if inspect.isclass(value)]
ERRORS = [kind for kind in ALL if issubclass(kind, Exception)]


def full(kind: type[CleanroomError]) -> CleanroomError:
    return kind(
        "would not start",
        service="db",
        plugin="postgres",
        backend="process",
        log_tail="FATAL: no\nbye",
        hint="look at the log",
    )


def test_the_tree() -> None:
    """Every error is under CleanroomError, three under ServiceError, one is also a ValueError."""
    assert {kind.__base__ for kind in ERRORS} == {Exception, CleanroomError, ServiceError}
    assert {kind for kind in ERRORS if kind.__base__ is ServiceError} == {
        StartTimeoutError,
        ContainerError,
        ProcessError,
    }
    assert issubclass(ValidationError, ValueError)
    assert all(kind in ERRORS for kind in (ConfigurationError, PluginError, InternalError))


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_survive_pickling(kind: type[CleanroomError]) -> None:
    """A pickled error comes back with its type and all of its context."""
    error = full(kind)
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is kind
    assert arrived.to_dict() == error.to_dict()
    assert str(arrived) == str(error)
    assert arrived.args == error.args


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_survive_as_dictionaries(kind: type[CleanroomError]) -> None:
    """`from_dict` makes the error that `to_dict` described; missing context is left out."""
    error = full(kind)
    assert str(CleanroomError.from_dict(error.to_dict())) == str(error)
    assert kind("x").to_dict() == {"type": kind.__name__, "message": "x"}


def test_a_subclass_of_somebody_else_is_found_by_name() -> None:
    """An error class that a plugin adds comes back as itself, with its own constructor."""

    class DiskFullError(ServiceError):
        def __init__(self, path: str) -> None:
            super().__init__(f"{path} is full")

    assert type(CleanroomError.from_dict(DiskFullError("/tmp").to_dict())) is DiskFullError


def test_an_unknown_type_becomes_the_base() -> None:
    """A dictionary that names an unknown type becomes a CleanroomError with that message."""
    error = CleanroomError.from_dict({"type": "NoSuchError", "message": "odd"})
    assert type(error) is CleanroomError
    assert str(error) == "odd"


def test_text_says_who_what_hint_and_log() -> None:
    """The text of an error names service, backend and plugin, and ends with hint and log."""
    assert str(full(ProcessError)) == (
        "service 'db' (process), plugin 'postgres': would not start\n"
        "  hint: look at the log\n"
        "  last lines of its log:\n"
        "    FATAL: no\n"
        "    bye"
    )


def test_text_without_context_is_the_message() -> None:
    """An error without context is its message."""
    assert str(ServiceError("broken")) == "broken"
    assert str(ServiceError("broken", backend="container")) == "container: broken"
    assert str(ServiceError("broken", plugin="redis")) == "plugin 'redis': broken"


def test_passwords_in_urls_are_hidden_everywhere() -> None:
    """A password in a URL shows neither in message, hint nor log tail."""
    url = "redis://:s3cret@localhost"
    error = ServiceError(f"no answer from {url}", hint=f"try {url}", log_tail=f"bound {url}")
    assert "s3cret" not in str(error) + repr(error) + repr(error.to_dict())


def test_nearest_suggests_one_or_lists_all() -> None:
    """The hint for an unknown word is the nearest known one, else all of them."""
    assert nearest("postgrs", ["redis", "postgres"]) == "did you mean 'postgres'?"
    assert nearest("kafka", ["redis", "postgres"]) == "known: postgres, redis"
    assert nearest("kafka", []) == "none is known"


def test_log_failure_hides_passwords(caplog: pytest.LogCaptureFixture) -> None:
    """A failure that stops nothing is logged as a warning, passwords hidden."""
    with caplog.at_level(logging.WARNING, "cleanroom"):
        log_failure("observer", RuntimeError("http://a:s3cret@b"))
    assert caplog.messages == ["observer raised RuntimeError: http://a:***@b"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET http://abc@h:80/x failed", "GET http://***@h:80/x failed"),
        ("https://u:abc@h", "https://u:***@h"),
        ("postgresql://ann@h/shop", "postgresql://ann@h/shop"),
        ("http://h/@abc", "http://h/@abc"),
        ("GET /x?a=1&token=abc: slow", "GET /x?a=1&token=***: slow"),
        ("'http://h/?X-Api-Key=abc&a=1'", "'http://h/?X-Api-Key=***&a=1'"),
        ("?api_key=abc, ?access_token=abc", "?api_key=***, ?access_token=***"),
        ("/?client_secret=abc#x", "/?client_secret=***#x"),
        ("/#access_token=abc", "/#access_token=***"),
        ("&X-Amz-Signature=abc", "&X-Amz-Signature=***"),
        ("?tokens_per_page=7", "?tokens_per_page=7"),
        ("http://h?a=b@c", "http://h?a=b@c"),
        ("host=h password='abc'", "host=h password='***'"),
        ("host=h password=abc user=u", "host=h password=*** user=u"),
    ],
)
def test_secrets_in_urls_are_hidden(text: str, shown: str) -> None:
    """A URL shows neither a password or token before its host, nor a parameter that is secret by
    its name; what else it has stays."""
    assert CleanroomError(text).message == shown


@pytest.mark.parametrize("part", ["a", "?a", "://", "?token="])
def test_looking_for_secrets_takes_no_time(part: str) -> None:
    """However long a text is, and whatever it has in it."""
    text = part * (256 * 1024 // len(part))
    began = time.monotonic()
    CleanroomError(text)
    assert time.monotonic() - began < 5
