"""Run pytest as `python -m pytest` does, and note when it gets how far.

It prints one line of JSON at the end: `marks`, the steps of the main thread in order, each with the
moment it ended; and `spans`, when each span of Cleanroom's began and ended, on whichever thread.
All moments are of the monotonic clock, in seconds. Only what is public is hooked: pytest's hooks,
the functions of `cleanroom.spans`, and Python's audit events.
"""

import time

marks = [("Python's start", time.monotonic())]

import contextlib  # noqa: E402
import functools  # noqa: E402
import importlib.abc  # noqa: E402
import importlib.machinery  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402

spans = []
STEPS = {
    "plugin_start_span": "start",
    "provision_span": "provision",
    "launch_span": "launch",
    "wait_ready_span": "the wait for an answer",
}
"""The spans that divide the start of a service into steps."""


def mark(step):
    marks.append((step, time.monotonic()))


class SpansNotedFinder(importlib.abc.MetaPathFinder):
    """Has the functions of `cleanroom.spans` noted as soon as, and not before, it is imported."""

    def find_spec(self, name, path, target=None):
        if name != "cleanroom.spans":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module

        def execute_and_wrap(module):
            execute(module)
            missing = STEPS.keys() - set(module.__all__)
            if missing:
                raise RuntimeError(f"cleanroom.spans has no {', '.join(sorted(missing))} any more")
            for function in module.__all__:
                if function.endswith("_span"):
                    setattr(module, function, noted(function, getattr(module, function)))

        spec.loader.exec_module = execute_and_wrap
        return spec


def noted(function, make):
    name = STEPS.get(function, function.removesuffix("_span"))

    @functools.wraps(make)
    def make_noted(*arguments):
        return note(name, function in STEPS, make(*arguments))

    return make_noted


@contextlib.contextmanager
def note(name, is_step, span):
    on_path = is_step and threading.current_thread() is threading.main_thread()
    if on_path:
        mark(f"before {name}")
    began = time.monotonic()
    try:
        with span as opened:
            yield opened
    finally:
        ended = time.monotonic()
        spans.append((name, began, ended))
        if on_path:
            marks.append(("rest of the start" if name == "start" else name, ended))


def first_process(event, arguments):
    if event == "subprocess.Popen" and not any(name == FIRST_PROCESS for name, _, _ in spans):
        now = time.monotonic()
        spans.append((FIRST_PROCESS, now, now))


FIRST_PROCESS = "the first process is made"
sys.addaudithook(first_process)
sys.meta_path.insert(0, SpansNotedFinder())
sys.path[0] = os.getcwd()  # as with -m

import pytest  # noqa: E402

mark("pytest is imported")

last = pytest.hookimpl(trylast=True)
around = pytest.hookimpl(wrapper=True, tryfirst=True)


class Hooks:
    """Note how far pytest is."""

    @last
    def pytest_configure(self):
        mark("pytest loads its plugins")

    @last
    def pytest_collection_finish(self):
        mark("pytest collects (the tests import psycopg)")

    @around
    def pytest_fixture_setup(self, fixturedef):
        result = yield
        mark(f"fixture {fixturedef.argname}")
        return result

    @around
    def pytest_runtest_call(self):
        mark("before the test")
        result = yield
        mark("the test")
        return result

    @around
    def pytest_runtest_teardown(self):
        mark("report of the test")
        result = yield
        mark("fixtures are torn down")
        return result

    @around
    def pytest_sessionfinish(self):
        result = yield
        mark("pytest's summary")
        return result

    @around
    def pytest_unconfigure(self):
        result = yield
        mark("the run is stopped")
        return result


code = pytest.main(sys.argv[1:], plugins=[Hooks()])
mark("pytest returns")
print("\n" + json.dumps({"marks": marks, "spans": spans}), flush=True)
sys.exit(code)
