"""Discovery among distributions that an installer put there, many of them broken."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

from tests.fresh_site import Site

STRANGERS = 300

BOX = """
    from cleanroom import HealthStatus, ServiceHandle

    class Box:
        def __init__(self, name="box", broken=False):
            self.name, self.broken = name, broken

        def start(self):
            if self.broken:
                raise RuntimeError("no lid")
            return ServiceHandle("1", self.name, {"url": f"box://{self.name}"})

        def stop(self, handle):
            pass

        def health_check(self, handle):
            return HealthStatus.HEALTHY
"""

BOX_FIXTURES = """
    import pytest

    @pytest.fixture(scope="session")
    def box(cleanroom_services):
        return cleanroom_services.start("box")
"""

FIXTURES_IN = """
    from cleanroom.hooks import hookimpl

    @hookimpl
    def cleanroom_fixture_modules():
        return {module!r}
"""

OBSERVER = """
    from cleanroom.hooks import hookimpl

    def note(line):
        with open("watched", "a") as file:
            print(line, file=file)

    @hookimpl
    def cleanroom_service_started(handle):
        note(f"{handle.service_name} is at {handle.url}")

    @hookimpl
    def cleanroom_service_stopped(handle):
        note(f"{handle.service_name} is gone")

    @hookimpl
    def cleanroom_service_failed(service_name, error):
        note(f"{service_name} failed: {error}")
"""

VALIDATOR = """
    from cleanroom.hooks import hookimpl

    @hookimpl
    def cleanroom_validate(plugin):
        if not plugin.name.islower():
            return [f"{plugin.name!r} is no name in lower case"]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """An environment with a good plugin, every kind of bad one, hooks, and many others."""
    site = Site(tmp_path_factory.mktemp("installed"))
    box = {"box_plugin": BOX, "box_fixtures": BOX_FIXTURES}
    numbers = range(STRANGERS)
    site.install(
        site.wheel(
            "box-plugin", "2.1", plugins={"box": "box_plugin:Box"}, hooks={"box": "box_hooks"},
            modules={**box, "box_hooks": FIXTURES_IN.format(module="box_fixtures")},
        ),
        bad(site, "broken-import", "0.1", "import nowhere"),
        bad(site, "leaver", "0.2", "raise SystemExit('the licence has expired')"),
        bad(site, "no-class", "0.3", "Plugin = 'text'"),
        bad(site, "half-class", "0.4", "class Plugin:\n    def start(self): ..."),
        bad(site, "other-api", "0.5", dedent(BOX).replace("Box", "Plugin") + "    API_VERSION = 7"),
        site.wheel("twin-one", "1.1", plugins={"twin": "twin_one:Box"}, modules={"twin_one": BOX}),
        site.wheel("twin-two", "1.2", plugins={"twin": "twin_two:Box"}, modules={"twin_two": BOX}),
        site.wheel(
            "torn-fixtures", "0.6", hooks={"torn": "torn_hooks"},
            modules={
                "torn_hooks": FIXTURES_IN.format(module="torn_fixtures"),
                "torn_fixtures": "raise OSError('no needle')",
            },
        ),
        site.wheel(
            "torn-hooks", "0.7", hooks={"hook": "torn_module"},
            modules={"torn_module": "1 / 0"},
        ),
        site.wheel("watcher", "3.1", hooks={"watch": "watcher"}, modules={"watcher": OBSERVER}),
        site.wheel("strict", "3.2", hooks={"strict": "strict"}, modules={"strict": VALIDATOR}),
        *(site.wheel(f"stranger-{n}", modules={f"stranger_{n}": "1 / 0"}) for n in numbers),
    )  # fmt: skip
    return site


def bad(site: Site, name: str, version: str, source: str) -> Path:
    """A distribution with a plugin of its own name that is none."""
    module = f"{name.replace('-', '_')}_module"
    return site.wheel(name, version, plugins={name: f"{module}:Plugin"}, modules={module: source})


def test_listing_reads_little_and_imports_nothing(site: Site, tmp_path: Path) -> None:
    """Among 300 others, listing reads each one's entry points once, and imports no module."""
    answer = site.answer(
        tmp_path,
        """
        import sys
        from cleanroom import discovery

        imported, opened = [], []

        def hear(event, details):
            if event == "import":
                imported.append(details[0])
            elif event == "open" and ".dist-info" in str(details[0]):
                opened.append(str(details[0]))

        sys.addaudithook(hear)
        entries = discovery.installed() + discovery.installed("cleanroom.hooks")
        answer = {
            "entries": [[e.name, e.distribution, e.version, e.value, e.disabled] for e in entries],
            "errors": [str(e.error) for e in entries if e.error],
            "imported": imported,
            "opened": opened,
        }
        """,
    )
    assert ["box", "box-plugin", "2.1", "box_plugin:Box", False] in answer["entries"]
    assert ["leaver", "leaver", "0.2", "leaver_module:Plugin", False] in answer["entries"]
    assert ["watch", "watcher", "3.1", "watcher", False] in answer["entries"]
    assert [entry[1] for entry in answer["entries"] if entry[0] == "twin"] == [
        "twin-one",
        "twin-two",
    ]
    assert answer["errors"] == []
    ours = {path.stem for path in site.packages.glob("*.py")}
    assert len(ours) > STRANGERS
    assert ours.isdisjoint(answer["imported"])
    read = [Path(path) for path in answer["opened"] if path.startswith(str(site.packages))]
    for other in site.packages.glob("stranger_*.dist-info"):
        assert [path.name for path in read if path.parent == other] == ["entry_points.txt"]


@pytest.fixture(scope="module")
def answers(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one process was told that asked for every plugin, the good one last."""
    told: dict[str, str] = site.answer(
        tmp_path_factory.mktemp("answers"),
        """
        import sys
        from cleanroom import PluginError, discovery

        answer = {}
        names = {entry.name for entry in discovery.installed() if "cleanroom" not in entry.value}
        for name in sorted(names, key=lambda name: (name == "box", name)):
            try:
                answer[name] = f"loaded {discovery.load_plugin(name).__name__}"
            except PluginError as error:
                answer[name] = f"{error} <- {error.__cause__!r}"
        answer["problems"] = " / ".join(map(str, discovery.problems()))
        answer["strangers"] = " ".join(n for n in sys.modules if n.startswith("stranger_"))
        """,
    )
    return told


EXPECTED = {
    "box": r"loaded Box",
    "broken-import": r"plugin 'broken-import': failed to load: ModuleNotFoundError: "
    r"No module named 'nowhere' \(broken_import_module:Plugin, from broken-import 0\.1\)"
    r".*<- ModuleNotFoundError.*",
    "leaver": r"plugin 'leaver': failed to load: SystemExit: the licence has expired "
    r"\(leaver_module:Plugin, from leaver 0\.2\).*<- SystemExit.*",
    "no-class": r"plugin 'no-class': not a plugin: it is not a class \(.*from no-class 0\.3\).*",
    "half-class": r"plugin 'half-class': not a plugin: the class lacks .*stop.* "
    r"\(.*from half-class 0\.4\).*",
    "other-api": r"plugin 'other-api': written for plugin API 7, while this cleanroom-core has "
    r"API 1 \(.*from other-api 0\.5\).*upgrade whichever of the two is older.*",
    "twin": r"plugin 'twin': claimed by twin-one 1\.1 and by twin-two 1\.2.*uninstall one.*",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_answers_for_itself(answers: dict[str, str], name: str) -> None:
    """In one process, each bad plugin is an error of its own, and the good one loads."""
    assert re.fullmatch(EXPECTED[name], answers[name], re.DOTALL), answers[name]


def test_problems_name_what_failed_and_no_more(answers: dict[str, str]) -> None:
    """What was asked for and failed is remembered, hooks included; no neighbour was imported."""
    failed = ("broken-import 0.1", "leaver 0.2", "no-class 0.3", "half-class 0.4", "other-api 0.5")
    for distribution in (*failed, "torn-hooks 0.7"):
        assert f"from {distribution})" in answers["problems"]
    assert answers["problems"].count(" / ") == len(failed)
    assert answers["strangers"] == ""


def test_uninstalling_one_settles_a_duplicate(site: Site, tmp_path: Path) -> None:
    """Once one of the two distributions is uninstalled, as the error says, the other loads."""
    load = "from cleanroom.discovery import load_plugin\nanswer = load_plugin('twin').__module__"
    site.pip("uninstall", "twin-one")
    try:
        assert site.answer(tmp_path, load) == "twin_two"
    finally:
        site.install(site.folder / "twin_one-1.1-py3-none-any.whl")


def test_switched_off_by_distribution_or_by_name(site: Site, tmp_path: Path) -> None:
    """CLEANROOM_DISABLE_PLUGINS settles a duplicate, and keeps what it names from being loaded."""
    answer = site.answer(
        tmp_path,
        """
        from cleanroom import PluginError, discovery

        answer = [discovery.load_plugin("twin").__module__]
        try:
            discovery.load_plugin("leaver")
        except PluginError as error:
            answer.append(str(error))
        answer.append([str(error) for error in discovery.problems()])
        answer.append(sorted(entry.name for entry in discovery.installed() if entry.disabled))
        """,
        CLEANROOM_DISABLE_PLUGINS="Twin_One, leaver,torn-hooks",
    )
    module, error, problems, disabled = answer
    assert module == "twin_two"
    assert error.startswith("plugin 'leaver': switched off by CLEANROOM_DISABLE_PLUGINS")
    assert problems == []
    assert disabled == ["leaver", "twin"]


SUITE = """
    import pytest

    def test_plain():
        pass

    def test_box(box):
        assert box.url == "box://box"

    def test_torn(torn):
        pass

    @pytest.mark.parametrize("name", ["good", "broken", "leaver", "twin", "Shouting", "lidless"])
    def test_declared(cleanroom_env, name):
        assert cleanroom_env[name].url == "box://good"
"""

DECLARED = """
    [services]
    good = { plugin = "box" }
    box = { plugin = "box", default = true }
    broken = { plugin = "broken-import" }
    leaver = { plugin = "leaver" }
    twin = { plugin = "twin" }
    Shouting = { plugin = "box" }
    lidless = { plugin = "box", broken = true }
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A user's tests, some of which ask for what is broken."""
    (tmp_path / "cleanroom.toml").write_text(dedent(DECLARED))
    (tmp_path / "test_it.py").write_text(dedent(SUITE))
    return tmp_path


PYTEST = ("-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider", "-rA")


def test_only_the_tests_that_use_what_is_broken_fail(site: Site, suite: Path) -> None:
    """In a run of pytest, others pass, and each failure says which distribution is to blame."""
    status, said = site.run(suite, *PYTEST)
    assert status == 1
    assert outcomes(said) == {
        "test_plain": "PASSED",
        "test_box": "PASSED",
        "test_torn": "ERROR",
        "test_declared[good]": "PASSED",
        **dict.fromkeys(
            (f"test_declared[{n}]" for n in ("broken", "leaver", "twin", "Shouting", "lidless")),
            "FAILED",
        ),
    }
    torn = "the fixtures in torn_fixtures cannot be used: OSError: no needle"
    assert said.count(torn) == 2  # in the header, and where the fixture is missed
    for blamed in (
        "'nowhere' (broken_import_module:Plugin, from broken-import 0.1)",
        "the licence has expired (leaver_module:Plugin, from leaver 0.2)",
        "claimed by twin-one 1.1 and by twin-two 1.2",
        "ZeroDivisionError: division by zero (torn_module, from torn-hooks 0.7)",
    ):
        assert blamed in said
    assert "stranger" not in said


def test_observer_and_validator_of_others_take_part(site: Site, suite: Path) -> None:
    """An installed observer is told of every service; an installed validator keeps one away."""
    _, said = site.run(suite, *PYTEST, "-k", "good or Shouting or lidless")
    objection = "'Shouting' is no name in lower case (says strict 3.2: strict)"
    assert f"ConfigurationError: service 'Shouting': {objection}" in said
    watched = (suite / "watched").read_text().splitlines()
    assert watched[0] == "good is at box://good"
    assert [line.partition(":")[0] for line in watched[1:]] == [
        "Shouting failed",
        "lidless failed",
        "good is gone",
    ]
    assert "no lid" in watched[2]
    (suite / "watched").unlink()
    answer = site.answer(
        suite,
        """
        from cleanroom import CleanroomEnvironment, ConfigurationError

        with CleanroomEnvironment.from_config() as env:
            answer = [env["good"].url]
            try:
                env["Shouting"]
            except ConfigurationError as error:
                answer.append(error.message)
        """,
    )
    assert answer == ["box://good", objection]
    assert (suite / "watched").read_text().splitlines()[::2] == [
        "good is at box://good",
        "good is gone",
    ]


def test_hooks_that_are_switched_off_do_not_take_part(site: Site, suite: Path) -> None:
    """With both distributions switched off, nothing is noted and nothing refused."""
    off = {"CLEANROOM_DISABLE_PLUGINS": "watcher,strict"}
    _, said = site.run(suite, *PYTEST, "-k", "good or Shouting", **off)
    assert "AssertionError" in said  # It was started: the test goes on to look at its URL.
    assert outcomes(said)["test_declared[good]"] == "PASSED"
    assert "is no name in lower case" not in said
    assert "cleanroom: CLEANROOM_DISABLE_PLUGINS switches off watch of watcher" in said
    assert not (suite / "watched").exists()


def outcomes(said: str) -> dict[str, str]:
    """The outcome of each test, from pytest's short summary."""
    return {
        name: outcome
        for outcome, name in re.findall(r"^(PASSED|FAILED|ERROR) test_it\.py::(\S+)", said, re.M)
    }
