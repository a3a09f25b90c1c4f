from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import pytest

from cleanroom import (
    HealthStatus,
    InternalError,
    ServiceHandle,
    ServicePlugin,
    SupportsIsolation,
    SupportsLogs,
)

URL = "postgresql://ann:s3cret@127.0.0.1:5432/shop"


@pytest.fixture
def handle() -> ServiceHandle:
    metadata = {"host": "127.0.0.1", "port": "5432", "url": URL, "password": "s3cret"}
    return ServiceHandle("run-1/db", "db", metadata)


class Bare:
    """A plugin by hand: no base class."""

    name = "bare"

    def start(self) -> ServiceHandle:
        return ServiceHandle("1", self.name)

    def stop(self, handle: ServiceHandle) -> None: ...

    def health_check(self, handle: ServiceHandle) -> HealthStatus:
        return HealthStatus.HEALTHY


def test_four_members_make_a_plugin() -> None:
    """An object with the four members is a ServicePlugin; what it cannot do, it does not claim."""
    assert isinstance(Bare(), ServicePlugin)
    assert not isinstance(Bare(), SupportsIsolation)
    assert not isinstance(Bare(), SupportsLogs)


def test_an_object_without_stop_is_no_plugin() -> None:
    """An object that lacks one of the four members is no ServicePlugin."""

    class Half:
        name = "half"
        start = health_check = Bare.start

    assert not isinstance(Half(), ServicePlugin)


def test_handle_reads_host_port_and_url_from_its_metadata(handle: ServiceHandle) -> None:
    """`host`, `port` and `url` are metadata, the port as a number."""
    assert (handle.host, handle.port, handle.url) == ("127.0.0.1", 5432, URL)


def test_handle_is_frozen(handle: ServiceHandle) -> None:
    """Neither the fields of a handle nor its metadata can be changed."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        handle.id = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        handle.metadata["host"] = "elsewhere"  # type: ignore[index]


def test_handle_does_not_share_the_dictionary_it_was_given() -> None:
    """A change of the dictionary that a handle was made from does not reach the handle."""
    metadata = {"host": "a"}
    handle = ServiceHandle("1", "db", metadata)
    metadata["host"] = "b"
    assert handle.host == "a"


@pytest.mark.parametrize(
    "travel",
    [
        lambda handle: ServiceHandle.from_json(handle.to_json()),
        lambda handle: pickle.loads(pickle.dumps(handle)),
        copy.copy,
        copy.deepcopy,
    ],
    ids=["json", "pickle", "copy", "deepcopy"],
)
def test_handle_travels(handle: ServiceHandle, travel: object) -> None:
    """A handle sent through JSON, pickle or copy is equal, hashes the same, and is frozen again."""
    arrived = travel(handle)  # type: ignore[operator]
    assert arrived == handle
    assert hash(arrived) == hash(handle)
    with pytest.raises(TypeError):
        arrived.metadata["host"] = "elsewhere"


def test_json_of_a_handle_is_one_line(handle: ServiceHandle) -> None:
    """`to_json` writes one line, with id, service name and metadata."""
    text = handle.to_json()
    assert "\n" not in text
    assert json.loads(text)["service_name"] == "db"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": 1, "service_name": "x", "metadata": 3}'])
def test_what_is_no_handle_is_refused(text: str) -> None:
    """JSON that is no handle raises InternalError, with the cause."""
    with pytest.raises(InternalError, match="not a service handle"):
        ServiceHandle.from_json(text)


def test_repr_hides_secrets(handle: ServiceHandle) -> None:
    """The repr of a handle shows its metadata, passwords hidden, those in URLs too."""
    assert "s3cret" not in repr(handle)
    assert "postgresql://ann:***@127.0.0.1:5432/shop" in repr(handle)


def test_require_names_service_and_key(handle: ServiceHandle) -> None:
    """`require` of an unknown key names the service, the key and the keys there are."""
    with pytest.raises(InternalError) as caught:
        handle.require("container_id")
    assert "'db'" in str(caught.value)
    assert "'container_id'" in str(caught.value)
    assert "host, password, port, url" in str(caught.value)


def test_port_that_is_no_number_is_a_broken_contract() -> None:
    """A port that is no number raises InternalError, which shows it."""
    with pytest.raises(InternalError, match="'many'"):
        _ = ServiceHandle("1", "db", {"port": "many"}).port
