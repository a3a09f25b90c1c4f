"""The conformance kit: what it takes, and what it refuses with which words."""

from __future__ import annotations

import ast
import logging
import os
import signal
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from xml.etree import ElementTree

import pytest

from cleanroom import ServiceError, ServiceHandle, testing
from cleanroom.testing import PluginConformance, _life_checks
from cleanroom.testing._left import Traces, has_container
from cleanroom.testing._recording import recording
from cleanroom.testing._service_checks import recorded
from tests import broken_plugins
from tests.broken_plugins import BROKEN
from tests.reference_plugin import BoxPlugin

if TYPE_CHECKING:
    from docker import DockerClient

    from cleanroom.testing import Service


class TestReference(PluginConformance):
    """A plugin that is written by hand against the bare protocol passes."""

    @pytest.fixture
    def plugin(self) -> BoxPlugin:
        return BoxPlugin("box", password="correct-horse")

    @pytest.fixture
    def failing_plugin(self) -> BoxPlugin:
        return BoxPlugin("box", executable="/there/is/no/python")

    def kill(self, handle: ServiceHandle) -> None:
        os.kill(int(handle.require("pid")), signal.SIGKILL)

    def write(self, handle: ServiceHandle, text: str) -> None:
        BoxPlugin().ask(handle, "add", text)

    def read(self, handle: ServiceHandle) -> Collection[str]:
        return BoxPlugin().ask(handle, "read")


@pytest.mark.slow
def test_broken_plugins_are_refused(pytester: pytest.Pytester) -> None:
    """Each plugin that breaks one promise fails the check of it, in words that help to mend it."""
    file = Path(broken_plugins.__file__)
    checks = [f"{file}::{suite}::{check}" for suite, (check, _) in BROKEN.items()]
    quiet = ("-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:xdist")
    pytester.runpytest_subprocess(*quiet, "--junitxml=report.xml", *checks)
    said = dict(findings(pytester.path / "report.xml"))
    assert said.keys() == BROKEN.keys()
    assert {suite: text for suite, text in said.items() if BROKEN[suite][1] not in text} == {}
    assert {suite: text for suite, text in said.items() if "\nTo mend: " not in text} == {}


def findings(report: Path) -> Iterator[tuple[str, str]]:
    """Return what was said of each suite; nothing, where its check has passed."""
    for case in ElementTree.parse(report).iter("testcase"):
        suite = case.attrib["classname"].rpartition(".")[2]
        yield suite, "".join(each.text or "" for each in case if each.tag in ("failure", "error"))


# ------------------------------------------------------------------ checks left out


def test_an_override_without_a_reason_is_refused() -> None:
    """A suite that overrides a check, itself or by a mixin, has to say why."""

    class Weak:
        test_logs_are_the_services = None

    with pytest.raises(pytest.fail.Exception, match=r"Lax.test_handle_travels overrides a check"):

        class Lax(PluginConformance):
            def test_handle_travels(self) -> None:  # type: ignore[override]
                """Pass."""

    with pytest.raises(pytest.fail.Exception, match=r"mark the override with @pytest.mark.xfail"):

        class Mixed(Weak, PluginConformance):  # type: ignore[misc]
            pass

    with pytest.raises(pytest.fail.Exception, match="does not say why"):

        class NoWord(PluginConformance):
            @pytest.mark.skip(reason=" ")
            def test_handle_travels(self) -> None:  # type: ignore[override]
                """Pass."""


def test_an_override_with_a_reason_is_taken() -> None:
    """A suite may expect a check to fail, or leave it out, where it says why."""

    class Different(PluginConformance):
        @pytest.mark.xfail(reason="the box tells all it has")
        def test_logs_are_the_services(self, service: Service) -> None:
            super().test_logs_are_the_services(service)

        @pytest.mark.skip("there is but one")
        def test_slices_do_not_meet(self, service: Service) -> None:
            """Pass."""

        def test_of_its_own(self) -> None:
            """Pass."""


def test_what_does_not_apply_is_left_out() -> None:
    """A check that a suite leaves out is no test of it, nor of what derives from it."""

    class WithoutSlices(PluginConformance):
        left_out: ClassVar = {"test_slice_is_clean": "the box is no store"}

    class Derived(WithoutSlices):
        pass

    for suite in (WithoutSlices, Derived):
        assert suite.test_slice_is_clean is None
        assert callable(suite.test_slices_do_not_meet)
    assert callable(PluginConformance.test_slice_is_clean)


@pytest.mark.parametrize(
    ("left_out", "says"),
    [
        ({"test_slices_are_clean": "no store"}, "(?s)is no check.*did you mean 'test_slice_is_"),
        ({"plugin": "no store"}, "which is no check"),
        ({"test_slice_is_clean": " "}, "does not say why"),
    ],
)
def test_what_cannot_be_left_out(left_out: dict[str, str], says: str) -> None:
    """Only a check of the kit is left out, and only with a reason."""
    with pytest.raises(pytest.fail.Exception, match=says):
        type("Lax", (PluginConformance,), {"left_out": left_out})


def test_slices_that_are_offered_are_not_left_out() -> None:
    """A suite of a plugin that offers slices has to check them."""

    class Lax(PluginConformance):
        left_out: ClassVar = {"test_slices_do_not_meet": "they meet"}

    with pytest.raises(pytest.fail.Exception, match="though the plugin offers slices"):
        Lax().test_is_a_plugin(BoxPlugin("box"))


def test_spans_need_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the SDK nothing else suffers, and the check of spans says what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with recording() as record:
        logging.getLogger("box").debug("heard")
        print("read")
    assert record.spans is None
    assert (record.logs, record.output) == (["heard"], "read\n")
    with pytest.raises(pytest.skip.Exception, match=r"pip install 'cleanroom-core\[testing\]'"):
        recorded(record.spans)


# ------------------------------------------------------------------- how a start fails


def test_a_start_that_fails_before_its_time() -> None:
    """Where a start that is to fail at its end fails before, the kit says by what."""

    class Unstartable(BoxPlugin):
        def prepare(self, handle: ServiceHandle) -> None:
            """What made_to_fail replaces."""

        def start(self) -> ServiceHandle:
            cause = OSError("no such host")
            raise ServiceError("its image could not be pulled", service=self.name) from cause

    failing = _life_checks.made_to_fail(Unstartable("box"))
    with pytest.raises(
        pytest.fail.Exception, match=r"before .* ready: .*its image could not be pulled"
    ):
        _life_checks.fails_well(failing)


# ------------------------------------------------------------------------ containers


def test_a_container_that_is_left_is_found(docker_engine: DockerClient, http_image: str) -> None:
    """A container that was stopped and not removed is left; one that is removed is not."""
    container = docker_engine.containers.create(http_image)
    container_id = str(container.id)
    traces = Traces(container=container_id)
    assert traces.left() == [f"container {container_id[:12]}"]
    container.remove()
    assert traces.left() == []


def test_engines_that_cannot_be_asked(tmp_path: Path) -> None:
    """Of an engine that is silent, or reached by other means, nothing is known."""
    for engine in (f"unix://{tmp_path}/no.sock", "tcp://127.0.0.1:1", "ssh://somewhere"):
        assert has_container(engine, "0" * 64) is None


# ---------------------------------------------------------------------- the kit itself

KIT = Path(testing.__file__).parent


@pytest.mark.parametrize("path", sorted(KIT.glob("*.py")), ids=lambda path: path.name)
def test_the_kit_needs_pytest_and_no_more(path: Path) -> None:
    """A module of the kit is short, and imports the core, pytest and OpenTelemetry only."""
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 300
    allowed = {*sys.stdlib_module_names, "cleanroom", "pytest", "opentelemetry"}
    assert {name.partition(".")[0] for name in imported(text)} <= allowed


def imported(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
