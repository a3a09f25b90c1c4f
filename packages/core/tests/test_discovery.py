from __future__ import annotations

import importlib
import threading
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from cleanroom import PluginError, discovery

if TYPE_CHECKING:
    from conftest import Site

GOOD = dedent("""
    from cleanroom import HealthStatus, ServiceHandle

    class Plugin:
        def __init__(self, name="box"): self.name = name
        def start(self): return ServiceHandle("1", self.name)
        def stop(self, handle): pass
        def health_check(self, handle): return HealthStatus.HEALTHY
""")

LOAD = """
    import sys
    from cleanroom import PluginError, discovery
    for name in sys.argv[1:] or NAMES:
        try:
            print(discovery.load_plugin(name).__name__)
        except PluginError as error:
            print(error)
            print("cause:", repr(error.__cause__))
"""


def load(site: Site, *names: str, **variables: str) -> str:
    return site.run(f"NAMES = {names!r}\n" + dedent(LOAD), **variables)


def test_listing_imports_nothing(site: Site) -> None:
    """The list of plugins names type, distribution, version and value, and imports no plugin."""
    site.install("box-plugin", version="2.1", plugins={"box": "box_plugin:Plugin"})
    site.install("ape", plugins={"ape": "ape_plugin:Ape"})
    code = """
        import sys
        from cleanroom import discovery
        for entry in discovery.installed():
            if entry.name in ("ape", "box"):
                print(entry.name, entry.distribution, entry.version, entry.value, entry.error)
        print([name for name in sys.modules if name.endswith("_plugin")])
    """
    assert site.run(code).splitlines() == [
        "ape ape 1.0 ape_plugin:Ape None",
        "box box-plugin 2.1 box_plugin:Plugin None",
        "[]",
    ]


def test_plugin_is_loaded_when_asked_for(site: Site) -> None:
    """`load_plugin` imports the class that the entry point names."""
    site.install("box-plugin", plugins={"box": "boxes:Plugin"}, modules={"boxes": GOOD})
    assert load(site, "box") == "Plugin"


def test_missing_plugin_suggests_the_nearest_and_what_to_install(site: Site) -> None:
    """An unknown name: the error gives the nearest installed one and what to install."""
    site.install("box-plugin", plugins={"boxes": "boxes:Plugin"})
    answer = load(site, "boxs")
    assert "plugin 'boxs': not installed" in answer
    assert "did you mean 'boxes'?" in answer
    assert '? Otherwise: pip install "cleanroom-plugin-boxs"' in answer


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_module", "ModuleNotFoundError"),
        ("import sys; sys.exit('licence expired')", "SystemExit('licence expired')"),
        ("1 / 0", "ZeroDivisionError"),
        ("def broken(:", "SyntaxError"),
        ("", "AttributeError"),
    ],
)
def test_plugin_that_fails_to_load_is_named_with_its_cause(
    site: Site, source: str, cause: str
) -> None:
    """A broken import, SystemExit included, is an error naming distribution, version and cause."""
    site.install("bad-plugin", version="0.3", plugins={"bad": "bad:Bad"}, modules={"bad": source})
    answer = load(site, "bad")
    assert "plugin 'bad': failed to load" in answer
    assert "(bad:Bad, from bad-plugin 0.3)" in answer
    assert f"cause: {cause}" in answer


def test_broken_plugin_breaks_no_other(site: Site) -> None:
    """Beside a broken plugin the others load, and the list says what is wrong with which."""
    site.install("bad-plugin", plugins={"bad": "bad:Bad"}, modules={"bad": "import nowhere"})
    site.install("box-plugin", plugins={"box": "boxes:Plugin"}, modules={"boxes": GOOD})
    answer = load(site, "bad", "box")
    assert answer.splitlines()[-1] == "Plugin"
    code = """
        from cleanroom import PluginError, discovery
        try:
            discovery.load_plugin("bad")
        except PluginError:
            pass
        for entry in discovery.installed():
            if entry.distribution in ("bad-plugin", "box-plugin"):
                print(entry.name, entry.error)
        print(len(discovery.problems()))
    """
    bad, box, count = site.run(code).splitlines()
    assert bad.startswith("bad plugin 'bad': failed to load: ModuleNotFoundError")
    assert (box, count) == ("box None", "1")


def test_duplicate_name_names_both_distributions(site: Site) -> None:
    """A name that two distributions claim is an error naming both, with their versions."""
    site.install("one-box", version="1.1", plugins={"box": "boxes:Plugin"}, modules={"boxes": GOOD})
    site.install("two-box", version="2.2", plugins={"box": "boxes:Plugin"})
    assert "claimed by one-box 1.1 and by two-box 2.2" in load(site, "box")


def test_disabling_one_distribution_settles_a_duplicate(site: Site) -> None:
    """A duplicate is gone where one of the distributions is switched off."""
    site.install("one-box", plugins={"box": "boxes:Plugin"}, modules={"boxes": GOOD})
    site.install("two-box", plugins={"box": "elsewhere:Plugin"})
    assert load(site, "box", CLEANROOM_DISABLE_PLUGINS="two_box") == "Plugin"


def test_same_distribution_twice_on_the_path_is_one(site: Site) -> None:
    """Of a distribution that is on the path twice, the first counts, as it does for imports."""
    site.install("one-box", version="1.1", plugins={"box": "boxes:Plugin"}, modules={"boxes": GOOD})
    second = type(site)(site.path / "second")
    second.install("One.Box", version="0.9", plugins={"box": "elsewhere:Plugin"})
    code = f"import sys; sys.path.append({str(second.path)!r})\nNAMES = ['box']\n" + dedent(LOAD)
    assert site.run(code) == "Plugin"


def test_other_api_version_names_both(site: Site) -> None:
    """A plugin for another version of the protocol is refused; the error names both versions."""
    source = GOOD + "    API_VERSION = 7\n"
    site.install("new-box", version="9", plugins={"box": "boxes:Plugin"}, modules={"boxes": source})
    answer = load(site, "box")
    assert "written for plugin API 7" in answer
    assert "has API 1" in answer
    assert "new-box 9" in answer


def test_stated_api_version_that_fits_is_fine(site: Site) -> None:
    """A plugin that states the version of this protocol loads."""
    source = GOOD + "    API_VERSION = 1\n"
    site.install("box-plugin", plugins={"box": "boxes:Plugin"}, modules={"boxes": source})
    assert load(site, "box") == "Plugin"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("boxes:Half", "the class lacks stop, health_check"),
        ("boxes:TEXT", "it is not a class"),
        ("boxes", "it is not a class"),
    ],
)
def test_what_is_no_plugin_is_refused(site: Site, value: str, problem: str) -> None:
    """An entry point to something else than a plugin class is an error that says what it lacks."""
    source = "TEXT = 'x'\nclass Half:\n    def start(self): ...\n"
    site.install("box-plugin", plugins={"box": value}, modules={"boxes": source})
    answer = load(site, "box")
    assert f"not a plugin: {problem}" in answer
    assert f"({value}, from box-plugin 1.0)" in answer


@pytest.mark.parametrize("value", ["box", " ape , Box", "box-plugin", "BOX_PLUGIN", "all"])
def test_disabled_plugins_do_not_load(site: Site, value: str) -> None:
    """CLEANROOM_DISABLE_PLUGINS switches off plugins and distributions by name, or all."""
    site.install("box-plugin", plugins={"box": "boxes:Plugin"}, modules={"boxes": "1 / 0"})
    answer = load(site, "box", CLEANROOM_DISABLE_PLUGINS=value)
    assert "switched off by CLEANROOM_DISABLE_PLUGINS" in answer
    code = """
        from cleanroom import discovery
        print([entry.disabled for entry in discovery.installed() if entry.name == "box"])
    """
    assert site.run(code, CLEANROOM_DISABLE_PLUGINS=value) == "[True]"


def test_broken_metadata_of_strangers_hides_nothing(site: Site) -> None:
    """Distributions with unreadable entry points or without metadata are passed over."""
    site.install("box-plugin", plugins={"box": "boxes:Plugin"}, modules={"boxes": GOOD})
    site.install("odd", plugins={"odd": "odd:Odd"})
    (site.path / "odd-1.0.dist-info" / "entry_points.txt").write_text("[cleanroom.plugins]\nodd\n")
    site.install("bare", plugins={"bare": "bare:Bare"})
    (site.path / "bare-1.0.dist-info" / "METADATA").unlink()
    site.install("bytes", plugins={"bytes": "bytes:Bytes"})
    (site.path / "bytes-1.0.dist-info" / "entry_points.txt").write_bytes(b"\xff\xfe[cleanroom.")
    assert load(site, "box") == "Plugin"


def test_three_hundred_other_distributions_do_not_matter(site: Site) -> None:
    """Among 300 other distributions the plugin is found, and metadata is read only once."""
    for number in range(300):
        site.install(f"other-{number}")
    site.install("box-plugin", plugins={"box": "boxes:Plugin"}, modules={"boxes": GOOD})
    code = """
        from importlib.metadata import PathDistribution
        from cleanroom import discovery

        reads, read_text = [], PathDistribution.read_text
        PathDistribution.read_text = lambda self, name: reads.append(name) or read_text(self, name)
        print([entry.name for entry in discovery.installed() if entry.name == "box"])
        first = len(reads)
        discovery.load_plugin("box")
        discovery.installed("cleanroom.hooks")
        print(first >= 300, len(reads) - first, reads.count("METADATA") < 30)
    """
    assert site.run(code).splitlines() == ["['box']", "True 0 True"]


def test_refresh_sees_what_was_installed_since(here: Site) -> None:
    """What is found is kept for the process; `refresh` looks again."""
    assert "late" not in [entry.name for entry in discovery.installed()]
    here.install("late", plugins={"late": "late_boxes:Plugin"}, modules={"late_boxes": GOOD})
    assert "late" not in [entry.name for entry in discovery.installed()]
    discovery.refresh()
    assert discovery.load_plugin("late").__name__ == "Plugin"


def test_a_mended_plugin_is_no_longer_reported(here: Site) -> None:
    """A plugin that loads at a second attempt is not listed as broken any more."""
    here.install("box-plugin", plugins={"box": "sick:Plugin"})
    with pytest.raises(PluginError):
        discovery.load_plugin("box")
    assert [error.plugin for error in discovery.problems()] == ["box"]
    (here.path / "sick.py").write_text(GOOD)
    importlib.invalidate_caches()
    discovery.load_plugin("box")
    assert discovery.problems() == []


def test_many_threads_get_the_same_class(here: Site) -> None:
    """A plugin that many threads load at once is imported once."""
    here.install("box-plugin", plugins={"box": "many_boxes:Plugin"}, modules={"many_boxes": GOOD})
    barrier = threading.Barrier(8)

    def ask(_: int) -> object:
        barrier.wait(20)
        return discovery.load_plugin("box")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1
