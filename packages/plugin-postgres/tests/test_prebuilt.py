"""What scripts and migrations make is kept for later runs, as long as it would be the same."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import textwrap
from base64 import b64decode
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from cleanroom import (
    CleanroomEnvironment,
    ConfigurationError,
    ServiceError,
    ServiceHandle,
    ValidationError,
)
from cleanroom_plugin_postgres import Database, PostgresPlugin, Template, _prebuilt
from cleanroom_plugin_postgres._cluster import extensions_of
from cleanroom_plugin_postgres._inputs import Migration
from cleanroom_runtime import LocalServer
from tests.grounds import Ground

Run = Callable[..., pytest.RunResult]
Start = Callable[[PostgresPlugin], ServiceHandle]

EARLIER = "content of an earlier run"
KEPT = "content kept for later runs"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, empty."""
    monkeypatch.setenv("CLEANROOM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def packs(cache: Path) -> list[Path]:
    """What was kept with content in it."""
    return [
        each
        for each in cache.glob("postgres/*/content.pack")
        if '"content"' in each.with_name("facts.json").read_text()
    ]


# ------------------------------------------------------------------------ the plugin


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an init script and migrations, which is the current folder."""
    for name, text in {
        "schema.sql": "CREATE ROLE clerk; CREATE TABLE item (name text)",
        "sql/1.sql": "INSERT INTO item VALUES ('one')",
        "sql/2.sql": "INSERT INTO item VALUES ('two'); GRANT SELECT ON item TO clerk",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def with_content(plugin: PostgresPlugin) -> PostgresPlugin:
    return plugin.with_init_script(Path("schema.sql")).with_migration("sql/*.sql")


def names(handle: ServiceHandle) -> list[str]:
    with psycopg.connect(handle.url) as connection:
        return [str(name) for (name,) in connection.execute("SELECT name FROM item ORDER BY name")]


def test_content_is_made_once(
    process_ground: Ground, start: Start, cache: Path, folder: Path
) -> None:
    """The second server starts with all there is: database, template, roles and grants."""
    plugin = with_content(process_ground.plugin())
    for how in (KEPT, EARLIER, EARLIER):
        handle = start(plugin)
        assert handle.metadata["content"] == how
        assert names(handle) == ["one", "two"]
        with plugin.isolate(handle) as isolated:
            assert names(isolated) == ["one", "two"]
            with psycopg.connect(isolated.url) as connection:
                granted = "SELECT has_table_privilege('clerk', 'item', 'SELECT')"
                assert connection.execute(granted).fetchall() == [(True,)]
                connection.execute("DROP TABLE item")
        with psycopg.connect(handle.url, autocommit=True) as connection:
            connection.execute("INSERT INTO item VALUES ('more')")
            connection.execute("CREATE ROLE intruder")
        plugin.stop(handle)
    assert len(packs(cache)) == 1


FILES = [
    """
    SET work_mem TO '9MB';
    SET ROLE pg_monitor;
    CREATE TEMPORARY TABLE mine ();
    SELECT pg_advisory_lock(4);
    """,
    """
    CREATE TABLE seen AS SELECT current_user::text, current_setting('work_mem') AS work_mem,
        to_regclass('mine') AS mine, (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory');
    CREATE SCHEMA app;
    ALTER DATABASE testdb SET search_path TO app, public;
    """,
    "CREATE TABLE late ()",
]


def test_each_file_has_a_session_of_its_own(
    process_ground: Ground, start: Start, cache: Path, tmp_path: Path
) -> None:
    """What a file sets for its session the next one has not, and what for new ones, it has."""
    for number, text in enumerate(FILES):
        (tmp_path / f"{number}.sql").write_text(text)
    handle = start(process_ground.plugin().with_migration(tmp_path / "*.sql"))
    with psycopg.connect(handle.url) as connection:
        seen = connection.execute("SELECT * FROM seen").fetchall()
        assert seen == [("test", "4MB", None, 0)]
        query = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'late'"
        assert connection.execute(query).fetchall() == [("app",)]


def test_no_password_is_kept(start: Start, cache: Path, folder: Path) -> None:
    """What is kept knows nothing of the password of the run that made it, not even its hash."""
    plugin = with_content(PostgresPlugin(backend="process"))
    first = plugin.with_credentials("test", "first-of-them")
    start(first)
    (pack,) = packs(cache)
    content = pack.read_bytes()
    assert b"first-of-them" not in content
    for rounds, salt, stored in re.findall(rb"SCRAM-SHA-256\$(\d+):([^$]+)\$([^:]+):", content):
        salted = hashlib.pbkdf2_hmac("sha256", b"first-of-them", b64decode(salt), int(rounds))
        key = hmac.digest(salted, b"Client Key", "sha256")  # RFC 5802, section 3
        assert hashlib.sha256(key).digest() != b64decode(stored)
    handle = start(plugin.with_credentials("test", "second-of-them"))
    assert handle.metadata["content"] == EARLIER
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(handle.url.replace("second", "first"))


def change_script(plugin: PostgresPlugin) -> PostgresPlugin:
    Path("schema.sql").write_text("CREATE ROLE clerk; CREATE TABLE item (name text NOT NULL)")
    return with_content(plugin)


def change_migration(plugin: PostgresPlugin) -> PostgresPlugin:
    Path("sql/2.sql").write_text("INSERT INTO item VALUES ('too')")
    return with_content(plugin)


def change_libpq(plugin: PostgresPlugin) -> PostgresPlugin:
    os.environ["PGOPTIONS"] = "-c work_mem=9MB"
    return with_content(plugin)


def add_migration(plugin: PostgresPlugin) -> PostgresPlugin:
    Path("sql/3.sql").write_text("INSERT INTO item VALUES ('three')")
    return with_content(plugin)


@pytest.mark.parametrize(
    "change",
    [
        change_script,
        change_migration,
        add_migration,
        change_libpq,
        lambda plugin: with_content(plugin).with_setting("default_text_search_config", "simple"),
        lambda plugin: with_content(plugin).with_env("TZ", "Asia/Tokyo"),
        lambda plugin: with_content(plugin).with_env("POSTGRES_INITDB_ARGS", "--locale=C"),
        lambda plugin: with_content(plugin).with_init_script("SELECT 1"),
    ],
    ids=[
        "script",
        "file",
        "further file",
        "libpq",
        "setting",
        "environment",
        "initdb",
        "further script",
    ],
)
def test_what_has_changed_is_made_again(
    change: Callable[[PostgresPlugin], PostgresPlugin],
    start: Start,
    cache: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is taken from an earlier run that would be different now."""
    monkeypatch.setenv("PGOPTIONS", "")
    plugin = PostgresPlugin(backend="process")
    start(with_content(plugin))
    changed = change(plugin)
    assert start(changed).metadata["content"] == KEPT
    assert start(changed).metadata["content"] == EARLIER
    assert len(packs(cache)) == 2


def test_damaged_content_is_made_again(start: Start, cache: Path, folder: Path) -> None:
    """One byte that is another in what was kept is enough."""
    plugin = with_content(PostgresPlugin(backend="process"))
    start(plugin)
    (pack,) = packs(cache)
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)
    assert start(plugin).metadata["content"] == KEPT
    assert start(plugin).metadata["content"] == EARLIER


def test_one_plugin_looks_again(start: Start, cache: Path, folder: Path) -> None:
    """Each start of one plugin object is with the files as they are then."""
    plugin = with_content(PostgresPlugin(backend="process"))
    assert names(start(plugin)) == ["one", "two"]
    Path("sql/2.sql").write_text("INSERT INTO item VALUES ('too')")
    for how in (KEPT, EARLIER):
        handle = start(plugin)
        assert handle.metadata["content"] == how
        assert names(handle) == ["one", "too"]


def test_an_input_that_changes_meanwhile(start: Start, cache: Path, folder: Path) -> None:
    """What was made from files that are others by now is for this run alone."""
    target = folder / "sql/3.sql"
    target.write_text("INSERT INTO item VALUES ('old')")
    (folder / "sql/2.sql").write_text(f"COPY (VALUES ('-- new')) TO '{target}'")
    handle = start(with_content(PostgresPlugin(backend="process")))
    alone = "content of this run alone: an input was changed while it was migrated"
    assert handle.metadata["content"] == alone
    assert names(handle) == ["one"]
    assert packs(cache) == []
    assert start(with_content(PostgresPlugin(backend="process"))).metadata["content"] == KEPT


class Further(PostgresPlugin):
    """A plugin that makes more than was asked for."""

    def prepare(self, handle: ServiceHandle) -> Mapping[str, str]:
        added = super().prepare(handle)
        with psycopg.connect(handle.url, autocommit=True) as connection:
            connection.execute("CREATE ROLE further")
        return added


def test_a_derived_plugin_prepares_once(start: Start, cache: Path, folder: Path) -> None:
    """What a class of the user's does to the ready server is not part of what is kept."""
    for how in (KEPT, EARLIER):
        assert start(with_content(Further(backend="process"))).metadata["content"] == how


@pytest.mark.parametrize(
    ("script", "because"),
    [
        ("ALTER SYSTEM SET work_mem TO '9MB'", "a migration says ALTER SYSTEM"),
        ("SELECT pg_create_physical_replication_slot('s')", "a migration made a replication slot"),
    ],
    ids=["settings", "slots"],
)
def test_what_is_of_the_whole_server(
    script: str, because: str, start: Start, cache: Path, folder: Path
) -> None:
    """What would be in force from the start, or does not outlive a server, is not kept."""
    plugin = with_content(PostgresPlugin(backend="process")).with_init_script(script)
    handle = start(plugin)
    assert handle.metadata["content"] == f"content of this run alone: {because}"
    assert names(handle) == ["one", "two"]
    assert packs(cache) == []


def test_while_another_run_makes_it(start: Start, cache: Path, folder: Path) -> None:
    """Nobody waits for another run's migration: the content is made in place then."""
    plugin = with_content(PostgresPlugin(backend="process"))
    start(plugin)
    (pack,) = packs(cache)
    pack.unlink()
    with pack.with_name("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        handle = start(plugin)
    assert handle.metadata["content"].startswith("content of this run alone: it is being made")
    assert names(handle) == ["one", "two"]
    assert packs(cache) == []
    assert start(plugin).metadata["content"] == KEPT


def test_a_tablespace_is_of_one_run(start: Start, cache: Path, folder: Path) -> None:
    """What lies in a folder of its own is not kept, as runs would share it; it works as ever."""
    far = folder / "far"
    far.mkdir()
    script = f"CREATE TABLESPACE far LOCATION '{far}'; CREATE TABLE item (name text) TABLESPACE far"
    plugin = PostgresPlugin(backend="process").with_init_script(script)
    handle = start(plugin.with_migration("sql/1.sql"))
    assert handle.metadata["content"] == "content of this run alone: it is in a tablespace"
    assert names(handle) == ["one"]
    assert packs(cache) == []


calls: list[str] = []


def fail_at_first(database: Template) -> None:
    calls.append(database.name)
    if len(calls) == 1:
        raise LookupError
    database.run_script("INSERT INTO item VALUES ('one')")


def test_a_function_that_fails_in_a_tablespace(start: Start, cache: Path, folder: Path) -> None:
    """It is called again in place, where nothing is left of the first time."""
    calls.clear()
    far = folder / "far"
    far.mkdir()
    script = f"CREATE TABLESPACE far LOCATION '{far}'; CREATE TABLE item (name text) TABLESPACE far"
    plugin = PostgresPlugin(backend="process").with_init_script(script)
    handle = start(plugin.with_migration(fail_at_first, [__file__]))
    assert handle.metadata["content"] == "content of this run alone: a migration failed"
    assert names(handle) == ["one"]


def test_a_server_that_does_not_end(
    start: Start, cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server does not leave in order in time is not kept, and is made in place."""
    monkeypatch.setattr(_prebuilt, "_PATIENCE", 0.1)
    monkeypatch.setattr(_prebuilt, "signal", SimpleNamespace(SIGINT=0))  # which ends nothing
    handle = start(with_content(PostgresPlugin(backend="process")))
    assert handle.metadata["content"].endswith("the server that made it did not end within 0.1 s")
    assert names(handle) == ["one", "two"]
    assert packs(cache) == []


def test_without_a_cache(
    start: Start, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be kept, the content is there all the same."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLEANROOM_CACHE_DIR", str(tmp_path / "file"))
    handle = start(with_content(PostgresPlugin(backend="process")))
    assert handle.metadata["content"].startswith(
        "content of this run alone: the cache cannot take it"
    )
    assert names(handle) == ["one", "two"]


def test_a_failing_script_leaves_nothing(
    cache: Path, folder: Path, left_over: Callable[[], list[str]]
) -> None:
    """A script that fails is told as ever, with the server's log; nothing is kept or running."""
    plugin = PostgresPlugin(backend="process").with_init_script("SELECT 1;\nSELECT 1/0")
    for _ in range(2):
        with pytest.raises(
            ServiceError, match=r"init script 1, line 2: division by zero"
        ) as caught:
            plugin.start()
        assert "ERROR:  division by zero" in (caught.value.log_tail or "")
        assert packs(cache) == []
        assert left_over() == []


def test_a_script_that_is_gone(cache: Path, folder: Path) -> None:
    """A script that was there when the plugin was made is missed by its name."""
    plugin = with_content(PostgresPlugin(backend="process"))
    (folder / "schema.sql").unlink()
    with pytest.raises(ValidationError, match=r"schema\.sql"):
        plugin.start()


def test_a_container_is_filled_in_place(
    postgres_image: str, start: Start, cache: Path, folder: Path
) -> None:
    """What a container has is made anew each time."""
    for _ in range(2):
        handle = start(with_content(PostgresPlugin("db", postgres_image, backend="container")))
        assert "content" not in handle.metadata
        assert names(handle) == ["one", "two"]
    assert not cache.exists()


# --------------------------------------------------------------------- declared ones


def test_migrate_inputs_need_migrate(folder: Path) -> None:
    """They would be inputs of nothing."""
    file = folder / "cleanroom.toml"
    file.write_text('[services.db]\nplugin = "postgres"\nmigrate_inputs = ["sql/*.sql"]\n')
    with pytest.raises(ConfigurationError, match="migrate_inputs was given without migrate"):
        CleanroomEnvironment.from_config(file).start("db")


# ------------------------------------------------------------------------- templates

CONFTEST = """
    from pathlib import Path

    import pytest

    from cleanroom_plugin_postgres import template

    HERE = Path(__file__).parent

    def migrate(template):
        {first}
        with open(HERE / "runs", "a") as file:
            file.write("x")
        for file in sorted((HERE / "sql").iterdir()):
            template.run_script(file)

    postgres_template = template(migrate, inputs={inputs!r})
"""
TESTS = """
    import pytest

    @pytest.mark.parametrize("number", range(2))
    def test_it(postgres_db, postgres_service, number):
        with postgres_db.connect() as connection:
            assert connection.execute("SELECT count(*) FROM item").fetchone() == (1,)
            connection.execute("INSERT INTO item VALUES ('more')")
            role = f"intruder_{postgres_db.name}"  # other workers have the same roles
            query = "SELECT count(*) FROM pg_roles WHERE rolname = %s"
            assert connection.execute(query, [role]).fetchone() == (number,)
            if not number:
                connection.execute(f"CREATE ROLE {role}")
"""


class Suite:
    """A suite with a template, of which a file says how often it was migrated."""

    def __init__(self, pytester: pytest.Pytester, run: Run) -> None:
        self.path, self.run = pytester.path, run
        (self.path / "sql").mkdir()
        self.write("sql/1.sql", "CREATE TABLE item (name text)")
        self.write("sql/2.sql", "INSERT INTO item VALUES ('one')")
        self.write("test_it.py", TESTS)

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(textwrap.dedent(text))

    def template(self, inputs: list[str], more: str = "", first: str = "pass") -> None:
        conftest = textwrap.dedent(CONFTEST.format(inputs=inputs, first=first))
        self.write("conftest.py", conftest + more)

    def runs(self, *arguments: str, passed: int = 2) -> int:
        """Run it, and return how often it was migrated so far."""
        options = ("-W", "ignore::cleanroom_plugin_postgres.NotIsolatedWarning")
        self.result = self.run(*options, *arguments)
        self.result.assert_outcomes(passed=passed)
        return len((self.path / "runs").read_text())


@pytest.fixture
def suite(
    pytester: pytest.Pytester, run: Run, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Suite:
    """A suite with a template, and a cache of its own."""
    monkeypatch.setenv("CLEANROOM_BACKEND", "process")
    monkeypatch.setenv("CLEANROOM_CACHE_DIR", str(cache))
    return Suite(pytester, run)


def test_a_template_is_migrated_once_for_all_runs(suite: Suite) -> None:
    """Later runs begin with the template as the first one made it, whatever tests did to theirs."""
    suite.template(["sql/*.sql"])
    assert suite.runs() == 1
    suite.result.stdout.fnmatch_lines([f"postgres: process, *, {KEPT} (*"])
    for arguments in [(), ("-n", "2", "--dist", "each")]:
        assert suite.runs(*arguments, passed=4 if arguments else 2) == 1
        suite.result.stdout.fnmatch_lines([f"postgres: process, *, {EARLIER} (*"])


def test_a_changed_input_is_migrated_again(suite: Suite) -> None:
    """A run notices that a file has changed, and that it has changed back."""
    suite.template(["sql/*.sql"])
    assert suite.runs() == 1
    suite.write("sql/2.sql", "INSERT INTO item VALUES ('two')")
    assert suite.runs() == 2
    suite.write("sql/2.sql", "INSERT INTO item VALUES ('one')")
    assert suite.runs() == 2


def test_a_changed_function_is_migrated_again(suite: Suite) -> None:
    """The file a function is in counts among its inputs."""
    suite.template(["sql/*.sql"])
    assert suite.runs() == 1
    suite.template(["sql/*.sql"], "# more\n")
    assert suite.runs() == 2


def test_an_input_that_is_younger_than_the_process(suite: Suite) -> None:
    """What a function has loaded before may be older than the file: it runs, and is not kept."""
    suite.template(["sql/*.sql"], "(HERE / 'sql/2.sql').touch()\n")
    assert [suite.runs(), suite.runs()] == [1, 2]
    suite.result.stdout.no_fnmatch_line("postgres: *content*")


DECLARED = """
    [services.postgres]
    plugin = "postgres"
    migrate = "shop.{module}:migrate"
    {inputs}
"""
FUNCTION = """
    def migrate(database):
        with open('runs', 'a') as file:
            file.write('x')
        database.run_script("CREATE TABLE item (name text); INSERT INTO item VALUES ('one')")
"""


@pytest.fixture
def declared(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """A suite with a package that has a function to migrate."""
    monkeypatch.setenv("PYTHONPATH", str(suite.path))
    (suite.path / "shop").mkdir()
    suite.write("shop/__init__.py", "")
    suite.write("shop/db.py", FUNCTION)
    suite.write("shop/front.py", "from shop.db import migrate")
    return suite


def test_inputs_can_be_declared(declared: Suite) -> None:
    """A function is run again when a file changes that it was said to depend on, or its own."""
    declared.write("cleanroom.toml", DECLARED.format(module="db", inputs=""))
    assert [declared.runs(), declared.runs()] == [1, 2]
    inputs = 'migrate_inputs = ["sql/*.sql"]'
    declared.write("cleanroom.toml", DECLARED.format(module="db", inputs=inputs))
    assert [declared.runs(), declared.runs()] == [3, 3]
    declared.write("sql/2.sql", "-- other")
    assert [declared.runs(), declared.runs()] == [4, 4]
    declared.write("shop/db.py", FUNCTION + "    # other\n")
    assert [declared.runs(), declared.runs()] == [5, 5]


def test_a_function_from_elsewhere(declared: Suite) -> None:
    """Where the file that was looked at is not the one with the function, nothing is kept."""
    inputs = 'migrate_inputs = ["sql/*.sql"]'
    declared.write("cleanroom.toml", DECLARED.format(module="front", inputs=inputs))
    assert [declared.runs(), declared.runs()] == [1, 2]
    alone = "content of this run alone: the function shop.front:migrate comes from another file"
    declared.result.stdout.fnmatch_lines([f"postgres: process, *, {alone} (*"])


def test_a_function_that_skips(suite: Suite) -> None:
    """A function that was called too early may still skip the tests."""
    suite.template(["sql/*.sql"], first="pytest.skip('no tool')")
    suite.run("-rs").assert_outcomes(skipped=2)


def test_a_function_that_needs_a_fixture(suite: Suite) -> None:
    """It is called again once the fixtures are there, and nothing is kept."""
    suite.template(
        ["sql/*.sql"],
        "import os\n"
        "@pytest.fixture(scope='session')\n"
        "def ready(postgres_service):\n"
        "    os.environ['SHOP_READY'] = '1'\n",
        first="os.environ['SHOP_READY']",
    )
    suite.write("test_it.py", TESTS.replace("test_it(", "test_it(ready, "))
    assert [suite.runs(), suite.runs()] == [1, 2]
    alone = "content of this run alone: a migration failed"
    suite.result.stdout.fnmatch_lines([f"postgres: process, *, {alone} (*"])


def test_a_function_with_no_inputs_runs_every_time(suite: Suite) -> None:
    """What nobody can tell whether it would make the same is not kept."""
    suite.template([])
    assert [suite.runs(), suite.runs()] == [1, 2]
    suite.result.stdout.no_fnmatch_line("postgres: *content*")


def test_fresh(suite: Suite) -> None:
    """`--cleanroom-fresh` migrates whatever is in the cache; what it makes is kept."""
    suite.template(["sql/*.sql"])
    assert suite.runs() == 1
    assert suite.runs("--cleanroom-fresh") == 2
    suite.result.stdout.fnmatch_lines([f"postgres: process, *, {KEPT} (*"])
    assert suite.runs("--cleanroom-fresh", "-n", "2", "--dist", "each", passed=4) == 3
    assert suite.runs() == 3


def test_templates_of_several_services(suite: Suite) -> None:
    """Each service starts with its own templates, on top of what was declared for it."""
    suite.write(
        "cleanroom.toml",
        """
        [services.db]
        plugin = "postgres"
        default = true

        [services.reporting]
        plugin = "postgres"
        init_scripts = ["base.sql"]
        """,
    )
    suite.write("base.sql", "CREATE TABLE base ()")
    suite.template(
        ["sql/*.sql"],
        "from cleanroom_plugin_postgres import postgres_fixtures\n"
        "reporting_db = postgres_fixtures('reporting').db\n"
        "reporting_template = template('sql/1.sql', service='reporting')\n",
    )
    suite.write(
        "test_reporting.py",
        """
        def test_both(postgres_db, reporting_db):
            for database, expected in ((postgres_db, ["item"]), (reporting_db, ["base", "item"])):
                with database.connect() as connection:
                    query = "SELECT relname FROM pg_class WHERE relkind = 'r' AND "
                    query += "relnamespace = 'public'::regnamespace ORDER BY 1"
                    found = connection.execute(query).fetchall()
                    assert [name for (name,) in found] == expected
        """,
    )
    for how in (KEPT, EARLIER):
        assert suite.runs("test_reporting.py", passed=1) == 1
        suite.result.stdout.fnmatch_lines_random(
            [f"db: process, *, {how} (*", f"reporting: process, *, {how} (*"]
        )


@pytest.mark.parametrize("by", ["files", "function"])
def test_a_template_that_fails(by: str, suite: Suite) -> None:
    """The tests that need it are told; others have their server, and nothing is kept.

    Files are tried once. A function is called once more where the tests use it.
    """
    suite.template(["sql/*.sql"])
    if by == "files":
        suite.write(
            "conftest.py",
            "from cleanroom_plugin_postgres import template\n"
            "postgres_template = template('sql/*.sql')\n",
        )
    suite.write("sql/2.sql", "INSERT INTO itm VALUES ('one')")
    suite.write("test_it.py", "def test_a(postgres_db): pass\ndef test_b(postgres_service): pass")
    for count in (2, 4):
        result = suite.run()
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines(['E *sql/2.sql, line 1: relation "itm" does not exist*'])
        result.stdout.fnmatch_lines(["postgres: *content of this run alone: a migration failed*"])
        if by == "function":
            assert (suite.path / "runs").read_text() == "x" * count


# --------------------------------------------------------------------- what is lasting


def by_name(template: object) -> None: ...


def with_default(template: object, rows: int = 3) -> None: ...


def bound_to(value: object) -> Callable[[object], None]:
    def migrate(template: object) -> None:
        assert value

    return migrate


@pytest.mark.parametrize(
    ("migrate", "lasting"),
    [
        pytest.param("*.py", True, id="glob"),
        pytest.param(["*.py", Path(__file__)], True, id="globs"),
        pytest.param("cleanroom_plugin_postgres._plugin:PostgresPlugin", True, id="name"),
        pytest.param("cleanroom_no_such_module:function", False, id="name of nothing"),
        pytest.param(by_name, True, id="function"),
        pytest.param(with_default, True, id="default"),
        pytest.param(partial(with_default, rows=4), True, id="partial"),
        pytest.param(partial(with_default, rows=object()), False, id="partial of an object"),
        pytest.param(bound_to("text"), True, id="closure"),
        pytest.param(bound_to({"key": [1, 2.5, None, Path()]}), True, id="closure of values"),
        pytest.param(bound_to(object()), False, id="closure of an object"),
        pytest.param(bound_to({"key": object()}), False, id="closure with an object"),
        pytest.param(Database.run_script, True, id="function of a class"),
        pytest.param(Database(ServiceHandle("", "", {})).run_script, False, id="method"),
        pytest.param(print, False, id="builtin"),
    ],
)
def test_what_another_run_can_compare(migrate: Any, lasting: bool) -> None:
    """Files always; functions only where what they are bound to is written the same again."""
    here = Path(__file__).parent
    assert Migration(migrate, here, "*.py").is_lasting is lasting
    by_files = isinstance(migrate, list) or migrate == "*.py"
    assert Migration(migrate, here).is_lasting is by_files


def test_what_is_in_memory_may_be_old(tmp_path: Path) -> None:
    """A function's files have to be older than the process, but for what was compiled."""
    (tmp_path / "a.sql").touch()
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/a.pyc").touch()
    assert Migration("a.sql", tmp_path).is_as_digested
    assert not Migration(by_name, tmp_path, "a.sql").is_as_digested
    assert Migration(by_name, tmp_path, "**/*.pyc").is_as_digested


def test_an_installed_extension_counts(tmp_path: Path) -> None:
    """What was installed beside a server may be used by a migration."""
    extensions = tmp_path / "share/extension"
    extensions.mkdir(parents=True)
    server = LocalServer(tmp_path / "bin/postgres", "99.1", "here")
    (extensions / "README").touch()
    (extensions / "one.control").write_text("1")
    first = extensions_of(server)
    assert [name for name, _, _ in first] == ["one.control"]
    (extensions / "one--1.sql").touch()
    second = extensions_of(server)
    os.utime(extensions / "one.control", (0, 0))
    assert len({str(first), str(second), str(extensions_of(server))}) == 3


def test_a_digest_is_of_what_files_hold(tmp_path: Path) -> None:
    """Where the files lie does not count, nor where they were named; their order does."""
    digests = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "a.sql").write_text("a")
        (folder / "b.sql").write_text("b")
        migration = Migration(["a.sql", "b.sql"], folder, place=name)
        digests.append(migration.digest)
        os.utime(folder / "a.sql", (0, 0))
    assert digests[0] == digests[1]
    assert Migration(["b.sql", "a.sql"], tmp_path / "one").digest != digests[0]
    (tmp_path / "two/a.sql").write_text("b")
    assert Migration(["a.sql", "b.sql"], tmp_path / "two").digest != digests[0]
