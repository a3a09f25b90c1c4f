from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from cleanroom import CleanroomEnvironment, ConfigurationError, PluginError, ServiceHandle
from cleanroom.config import DeclaredService, load_config

if TYPE_CHECKING:
    from conftest import Site

MODULE = """
    from cleanroom import HealthStatus, ServiceHandle, ValidationError

    class Box:
        def __init__(self, name="box", size=1, backend="auto", env=None, command=()):
            if not isinstance(size, int):
                raise ValidationError(f"size is {size!r}, not a number", hint="write 3")
            self.name, self.size, self.backend, self.env = name, size, backend, env or {}
            self.command = command

        def start(self):
            return ServiceHandle("1", self.name, {"url": f"box://{self.name}", "port": "7"})

        def stop(self, handle):
            pass

        def health_check(self, handle):
            return HealthStatus.HEALTHY

    class Apart(Box):
        def view_of(self, handle):
            return ServiceHandle(handle.id, handle.service_name, {"url": "box://from-afar"})

    class Keyed(Box):
        CONFIG_KEYS = ("volume",)

        @classmethod
        def from_config(cls, name, options, folder):
            made = cls(name)
            made.options, made.folder = options, folder
            return made

    class Free(Box):
        @classmethod
        def from_config(cls, name, options, folder):
            return cls(name, env=options)

    class Open(Box):
        def __init__(self, name, **more):
            super().__init__(name, env=more)
"""


@pytest.fixture
def project(here: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder, the current one, with a few plugins installed."""
    plugins = {
        kind.lower(): f"config_boxes:{kind}" for kind in ("Box", "Apart", "Keyed", "Free", "Open")
    }
    broken = {"broken": "no_such_module_of_ours:Box"}
    here.install("boxes", plugins=plugins | broken, modules={"config_boxes": MODULE})
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


Declare = Callable[[str], Path]


@pytest.fixture
def declare(project: Path) -> Declare:
    """A function that writes `pyproject.toml`, `[services.x]` short for the whole table name."""

    def write(text: str) -> Path:
        file = project / "pyproject.toml"
        file.write_text(text.replace("[services", "[tool.cleanroom.services"))
        return file

    return write


# ------------------------------------------------------------------------ reading


def test_services_are_read_from_pyproject(declare: Declare) -> None:
    """Each table becomes a DeclaredService, with what is ours taken out of the options."""
    file = declare("""
        [services.db]
        plugin = "box"
        size = 2
        default = true

        [services.api]
        plugin = "box"
        backend = "process"
        depends_on = ["db"]
    """)
    assert load_config() == [
        DeclaredService(
            "db",
            "box",
            {"size": 2},
            (),
            True,
            f"{file} [tool.cleanroom.services.db]",
            file.parent,
        ),
        DeclaredService(
            "api",
            "box",
            {"backend": "process"},
            ("db",),
            False,
            f"{file} [tool.cleanroom.services.api]",
            file.parent,
        ),
    ]


def test_cleanroom_toml_goes_first_and_has_shorter_names(declare: Declare, project: Path) -> None:
    """In one folder, `cleanroom.toml` with `[services.NAME]` goes before `pyproject.toml`."""
    declare('[services.db]\nplugin = "box"')
    (project / "cleanroom.toml").write_text('[services.cache]\nplugin = "box"')
    (service,) = load_config()
    assert service.name == "cache"
    assert service.source == f"{project / 'cleanroom.toml'} [services.cache]"


def test_nearest_file_with_services_counts(declare: Declare, project: Path) -> None:
    """The search goes upwards, past files that declare no service."""
    declare('[services.db]\nplugin = "box"')
    inner = project / "packages" / "one"
    inner.mkdir(parents=True)
    (inner / "pyproject.toml").write_text('[project]\nname = "cleanroom-user"\n')
    (project / "packages" / "pyproject.toml").write_text("not [ our business")
    assert [service.name for service in load_config(inner)] == ["db"]
    (inner / "cleanroom.toml").write_text('[services.near]\nplugin = "box"')
    assert [service.name for service in load_config(inner)] == ["near"]


def test_a_file_can_be_named(declare: Declare, project: Path) -> None:
    """A path to a file reads that file and no other."""
    file = project / "staging.toml"
    file.write_text('[services.db]\nplugin = "box"')
    assert [service.name for service in load_config(file)] == ["db"]
    assert load_config(declare("[project]")) == []


def test_nothing_declared_is_an_empty_list(project: Path) -> None:
    """Without any declaration the list is empty, while an environment of it is refused."""
    assert load_config() == []
    with pytest.raises(ConfigurationError, match="no service is declared"):
        CleanroomEnvironment.from_config()


def test_repr_of_a_declaration_hides_its_options(declare: Declare) -> None:
    """The options of a service, which may hold secrets, are not in its repr."""
    declare('[services.db]\nplugin = "box"\npassword = "s3cret"')
    assert "s3cret" not in repr(load_config())


def test_reading_imports_no_plugin(declare: Declare) -> None:
    """Services of plugins that are broken or missing can be read."""
    declare('[services.a]\nplugin = "broken"\n[services.b]\nplugin = "missing"')
    assert len(load_config()) == 2


# ----------------------------------------------------------------------- building


def test_environment_runs_what_is_declared(declare: Declare) -> None:
    """`from_config` makes an environment in which declared services start when asked for."""
    declare("""
        [services.api]
        plugin = "box"
        env = { DB = "{db.url}/x", ALL = ["{db.port}", "{port}", 5] }
        command = ["serve", "--port", "{port}", "${HOME:-x}", "{{db.url}}", "$${HOME}"]

        [services.db]
        plugin = "box"
        size = 3
    """)
    with CleanroomEnvironment.from_config() as env:
        assert dict(env.services) == {}
        assert env["api"].url == "box://api"
        api: object = env.plugin("api")
        assert api.env == {"DB": "box://db/x", "ALL": ["7", "{port}", 5]}  # type: ignore[attr-defined]
        command = api.command  # type: ignore[attr-defined]
        assert command[2] == "{port}"
        assert command[4:] == ["{db.url}", "${HOME}"]
        assert set(env.services) == {"api", "db"}


def test_reference_implies_the_dependency(declare: Declare) -> None:
    """A service whose options speak of another depends on it, each named once."""
    declare("""
        [services.api]
        plugin = "box"
        env = { A = "{db.url}", B = "{db.port}{cache.url}" }
        depends_on = ["cache"]
        [services.db]
        plugin = "box"
        [services.cache]
        plugin = "box"
    """)
    assert load_config()[0].depends_on == ("cache", "db")


def test_from_config_of_a_class_gets_name_options_and_folder(
    declare: Declare, tmp_path: Path
) -> None:
    """A class with `from_config` is made by it; one without gets keyword arguments."""
    declare("""
        [services.a]
        plugin = "keyed"
        volume = 3
        [services.b]
        plugin = "free"
        anything = "goes"
        [services.c]
        plugin = "open"
        more = true
    """)
    a, b, c = (service.build({}) for service in load_config())
    assert (a.name, a.options) == ("a", {"volume": 3})  # type: ignore[attr-defined]
    assert a.folder == tmp_path / "project"  # type: ignore[attr-defined]
    assert b.env == {"anything": "goes"}  # type: ignore[attr-defined]
    assert c.env == {"more": True}  # type: ignore[attr-defined]


def test_variables_come_from_the_process(declare: Declare, monkeypatch: pytest.MonkeyPatch) -> None:
    """`${VAR}` is the variable, `${VAR:-default}` has a default; values are not looked into."""
    monkeypatch.setenv("BOX", "{db.url}${NOPE}")
    monkeypatch.delenv("NOPE", raising=False)
    declare('[services.a]\nplugin = "box"\ncommand = ["${BOX}", "${NOPE:-}", "${NOPE:-a b}"]')
    assert load_config()[0].build({}).command == ["{db.url}${NOPE}", "", "a b"]  # type: ignore[attr-defined]


def test_values_of_other_handles_may_be_given(declare: Declare) -> None:
    """Who builds a plugin decides what `{db.url}` reads, for instance a test's own database."""
    declare('[services.a]\nplugin = "box"\ncommand = "{b.url}"\n[services.b]\nplugin = "box"')
    slice_of_b = ServiceHandle("1", "b", {"url": "box://slice"})
    assert load_config()[0].build({"b": slice_of_b}).command == "box://slice"  # type: ignore[attr-defined]


def test_a_plugin_sees_others_its_own_way(declare: Declare) -> None:
    """`{db.url}` reads what the plugin that is given it says it sees, if it says so."""
    declare('[services.a]\nplugin = "apart"\ncommand = "{b.url}"\n[services.b]\nplugin = "box"')
    with CleanroomEnvironment.from_config() as env:
        assert env.plugin("a").command == "box://from-afar"  # type: ignore[attr-defined]
        assert env["b"].url == "box://b"


def test_broken_plugin_breaks_only_its_service(declare: Declare) -> None:
    """An environment with a plugin that does not load starts the others; that one says why."""
    declare('[services.a]\nplugin = "broken"\n[services.b]\nplugin = "box"')
    with CleanroomEnvironment.from_config() as env:
        assert env["b"].url == "box://b"
        with pytest.raises(PluginError, match="failed to load"):
            env.start("a")


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("[services.db]", "services.db] plugin", "missing"),
        ("[services.db]\nplugin = 3", "services.db] plugin", "is 3, not a string"),
        ("[services]\ndb = 3", "[tool.cleanroom.services]", "is 3, not a table"),
        ("[tool.cleanroom]\nservices = []", "[tool.cleanroom]", "is [], not a table"),
        ("tool = { cleanroom = 1 }", "cleanroom", "is 1, not a table"),
        ('[services.db]\nplugin = "box"\ndefault = 1', "] default", "is 1, not a boolean"),
        ('[services.db]\nplugin = "box"\nbackend = 1', "] backend", "is 1, not a string"),
        ('[services.db]\nplugin = "box"\ndepends_on = "a"', "] depends_on", "not an array"),
        ('[services.db]\nplugin = "box"\ndepends_on = [1]', "] depends_on", "is 1, not a string"),
        ('[tool.cleanroom.service.db]\nplugin = "box"', "cleanroom] service", "unknown key"),
        (
            '[services.cache]\nplugin = "box"\n[services.db]\nplugin="box"\ndepends_on = ["cahce"]',
            "services.db] depends_on",
            "did you mean 'cache'?",
        ),
        (
            '[services.cache]\nplugin = "box"\n[services.db]\nplugin="box"\nenv.X = "{cahce.url}"',
            "services.db] env.X",
            "no service 'cahce' is declared",
        ),
        (
            '[services.a]\nplugin = "box"\nenv.X = "{b.url}"\n'
            '[services.b]\nplugin = "box"\ndepends_on = ["a"]',
            "] depends_on",
            "goes in a circle: ",
        ),
        ('[services.a]\nplugin = "box"\ndepends_on = ["a"]', "services.a] depends_on", "a -> a"),
        (
            '[services.a]\nplugin = "box"\ndefault = true\n'
            '[services.b]\nplugin = "box"\ndefault = true',
            "services.b] default",
            "'a' is the default for 'box' already",
        ),
        ('[services.db]\nplugin = "bux"', "services.db] plugin", "did you mean 'box'?"),
        ('[services.db]\nplugin = "box"\nsiez = 1', "services.db] siez", "did you mean 'size'?"),
        (
            '[services.db]\nplugin = "box"\ndepend_on = []',
            "services.db] depend_on",
            "did you mean 'depends_on'?",
        ),
        ('[services.db]\nplugin = "box"\nname = "x"', "services.db] name", "unknown key"),
        ('[services.db]\nplugin = "keyed"\nvolumes = 1', "services.db] volumes", "volume"),
        ('[services.db]\nplugin = "box"\nenv.X = "${NOPE}"', "] env.X", "NOPE is not set"),
        ('[services.db]\nplugin = "box"\nenv.X = "${NOPE:-${HOME}}"', "] env.X", "of NOPE has"),
        ('[services.db]\nplugin = "box"\nenv.X = "${HOME:-{b.url}}"', "] env.X", "of HOME has"),
    ],
)
def test_error_names_file_table_and_key(
    declare: Declare, monkeypatch: pytest.MonkeyPatch, text: str, where: str, what: str
) -> None:
    """A wrong declaration is a ConfigurationError naming file, table and key, and what to do."""
    monkeypatch.delenv("NOPE", raising=False)
    file = declare(text)
    with pytest.raises(ConfigurationError) as caught:
        CleanroomEnvironment.from_config()
    message = str(caught.value)
    assert str(file) in message
    assert where in message
    assert what in message


def test_circle_is_told_in_the_direction_of_dependence(declare: Declare) -> None:
    """A circle reads as 'depends on': a -> b -> c -> a."""
    declare("""
        [services.a]
        plugin = "box"
        depends_on = ["b"]
        [services.b]
        plugin = "box"
        depends_on = ["c"]
        [services.c]
        plugin = "box"
        depends_on = ["a"]
    """)
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    circle = str(caught.value).split(": ")[-1].split(" -> ")
    assert " ".join(circle) in "a b c a b c a"
    assert len(circle) == 4


def test_syntax_error_says_line_and_column(declare: Declare) -> None:
    """A TOML syntax error is told with file, line and column."""
    file = declare('[services.db]\nplugin = "box\n')
    with pytest.raises(ConfigurationError, match=r"line 2, column 14") as caught:
        load_config()
    assert str(file) in str(caught.value)


def test_unreadable_text_is_told(project: Path) -> None:
    """A file that is no UTF-8 is a ConfigurationError that names it."""
    (project / "cleanroom.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=r"cleanroom.toml: 'utf-8'"):
        load_config()


def test_unknown_key_at_the_top_of_cleanroom_toml(project: Path) -> None:
    """A `cleanroom.toml` that uses the long table names is told the short ones."""
    (project / "cleanroom.toml").write_text('[tool.cleanroom.services.db]\nplugin = "box"')
    with pytest.raises(ConfigurationError, match=r"tool: unknown key[\s\S]*declare .services.NAME"):
        load_config()


def test_path_that_does_not_exist(project: Path) -> None:
    """A path to nothing is refused."""
    with pytest.raises(ConfigurationError, match="no such file or folder"):
        load_config(project / "nope.toml")


def test_unknown_metadata_key_lists_those_there_are(declare: Declare) -> None:
    """A reference to a metadata key that the service lacks lists those that it has."""
    declare('[services.a]\nplugin = "box"\nenv.X = "{b.uri}"\n[services.b]\nplugin = "box"')
    env = CleanroomEnvironment.from_config()
    with pytest.raises(ConfigurationError, match=r"env.X: \{b.uri\}[\s\S]*b has port, url"):
        env.start("a")
    assert dict(env.services) == {}


@pytest.mark.parametrize(
    ("options", "what"),
    [('size = "big"', "size is 'big', not a number"), ("", "missing 1 required")],
)
def test_what_the_class_refuses_is_told_with_file_and_table(
    declare: Declare, here: Site, options: str, what: str
) -> None:
    """What the class raises is told with file and table, its hint, and chained."""
    source = MODULE + "\n    class Strict(Box):\n        def __init__(self, name, must): ...\n"
    here.install("strict-box", plugins={"strict": "strict_boxes:Strict"})
    (here.path / "strict_boxes.py").write_text(dedent(source))
    declare(f'[services.db]\nplugin = "{"box" if options else "strict"}"\n{options}')
    with pytest.raises(ConfigurationError) as caught:
        CleanroomEnvironment.from_config().start("db")
    assert "[tool.cleanroom.services.db]: " in str(caught.value)
    assert what in str(caught.value)
    assert isinstance(caught.value.__cause__, TypeError | ValueError)
    assert caught.value.hint == ("write 3" if options else None)
