from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from cleanroom import ServiceHandle

Run = Callable[..., pytest.RunResult]


# --------------------------------------------------------------------- the main job


def test_no_configuration(pytester: pytest.Pytester, run: Run) -> None:
    """A test that asks for `postgres_db` has a database; the run says which server served it."""
    pytester.makepyfile(
        """
        def test_it(postgres_db):
            with postgres_db.connect() as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
        """
    )
    result = run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "cleanroom: postgres: process (no image was named*from the embedded extra)",
            "postgres: process, version *, ready in *.* s (no image was named*)",
        ]
    )


DIRTY = """
    import pytest

    SPOILERS = {}

    def spoiler(function):
        SPOILERS[function.__name__] = function
        return function

    @spoiler
    def commits_rows(db):
        with db.connect() as connection:
            connection.execute("INSERT INTO item VALUES (default, 'spoiled')")

    @spoiler
    def makes_tables(db):
        with db.connect() as connection:
            connection.execute("CREATE TABLE spoiled (i int)")
            connection.execute("CREATE SCHEMA spoiled")
            connection.execute("ALTER TABLE item ADD COLUMN spoiled int")

    @spoiler
    def opens_several_connections(db):
        first, second = db.connect(autocommit=True), db.connect(autocommit=True)
        first.execute("DELETE FROM item")
        assert second.execute("SELECT count(*) FROM item").fetchone() == (0,)

    @spoiler
    def leaves_a_transaction_open(db):
        db.connect().execute("LOCK TABLE item; UPDATE item SET name = 'spoiled'")

    @spoiler
    def leaves_a_foreign_transaction_open(db):
        import psycopg
        connection = psycopg.connect(db.url)
        connection.execute("LOCK TABLE item; UPDATE item SET name = 'spoiled'")
        KEPT.append(connection)

    @spoiler
    def sets_settings(db):
        with db.connect() as connection:
            connection.execute(f"ALTER DATABASE {db.name} SET work_mem TO '1234kB'")

    @spoiler
    def grants(db):
        with db.connect() as connection:
            connection.execute(f"REVOKE ALL ON DATABASE {db.name} FROM PUBLIC")

    @spoiler
    def writes_large_objects(db):
        with db.connect() as connection:
            connection.execute("SELECT lo_from_bytea(0, 'spoiled')")

    @spoiler
    def uses_sequences(db):
        with db.connect() as connection:
            connection.execute("SELECT nextval('item_id_seq')")

    @spoiler
    def comments_and_extends(db):
        with db.connect() as connection:
            connection.execute("CREATE FUNCTION spoiled() RETURNS int LANGUAGE sql AS 'SELECT 1'")
            connection.execute("COMMENT ON TABLE item IS 'spoiled'")

    @spoiler
    def truncates(db):
        with db.connect() as connection:
            connection.execute("TRUNCATE item RESTART IDENTITY")

    @spoiler
    def does_nothing(db):
        pass

    KEPT = []

    def state(db):
        with db.connect() as connection:
            def ask(query):
                return connection.execute(query).fetchall()
            return {
                "rows": ask("SELECT * FROM item"),
                "tables": ask("SELECT relname, relnatts FROM pg_class WHERE relkind = 'r' "
                              "AND relnamespace = 'public'::regnamespace"),
                "schemas": ask("SELECT nspname FROM pg_namespace ORDER BY 1"),
                "functions": ask("SELECT proname FROM pg_proc WHERE proname = 'spoiled'"),
                "comment": ask("SELECT obj_description('item'::regclass)"),
                "settings": ask("SELECT current_setting('work_mem'), count(*) "
                                "FROM pg_db_role_setting"),
                "grants": ask("SELECT datacl FROM pg_database "
                              "WHERE datname = current_database()"),
                "objects": ask("SELECT count(*) FROM pg_largeobject_metadata"),
                "sequence": ask("SELECT last_value, is_called FROM item_id_seq"),
                "locks": ask("SELECT count(*) FROM pg_locks JOIN pg_database ON "
                             "pg_database.oid = database WHERE pid <> pg_backend_pid() "
                             "AND datname = current_database() AND locktype = 'relation'"),
                "url": db.url,
            }

    CLEAN = []

    @pytest.mark.parametrize("again", [1, 2])
    @pytest.mark.parametrize("spoil", SPOILERS.values(), ids=str)
    def test_it(postgres_db, spoil, again):
        now = state(postgres_db)
        CLEAN.append(now)
        assert now == CLEAN[0]
        assert now["rows"] == [(1, "first")]
        spoil(postgres_db)
"""


def test_tests_do_not_see_each_other(pytester: pytest.Pytester, run: Run, backend: str) -> None:
    """Whatever a test leaves in its database, the next one finds it clean under the same URL."""
    pytester.makeconftest(
        """
        from cleanroom_plugin_postgres import template

        def migrate(template):
            template.run_script(
                "CREATE TABLE item (id serial, name text);"
                "INSERT INTO item (name) VALUES ('first');"
            )

        postgres_template = template(migrate)
        """
    )
    pytester.makepyfile(DIRTY)
    result = run(tidy=False)
    result.assert_outcomes(passed=24)
    result.stdout.fnmatch_lines([f"postgres: {backend}, version *"])


@pytest.mark.slow
def test_order_does_not_matter(pytester: pytest.Pytester, run: Run) -> None:
    """The tests that spoil their databases pass in any order, as pytest-randomly has them run."""
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def postgres_template(postgres_template):
            postgres_template.run_script(
                "CREATE TABLE item (id serial, name text);"
                "INSERT INTO item (name) VALUES ('first');"
            )
            return postgres_template
        """
    )
    pytester.makepyfile(DIRTY)
    result = run(order="randomly", tidy=False)
    result.assert_outcomes(passed=24)
    result.stdout.fnmatch_lines(["Using --randomly-seed=*"])


def test_leftover_connection_of_the_fixture_is_closed(pytester: pytest.Pytester, run: Run) -> None:
    """What `connect` opened and a test left open is closed: no warning, not even at the end."""
    pytester.makepyfile(
        """
        import gc

        OPENED = []

        def test_leave(postgres_db):
            connection = postgres_db.connect()
            connection.execute("CREATE TABLE t ()")
            OPENED.append(connection)

        def test_next(postgres_db):
            assert OPENED.pop().closed
            gc.collect()

        def test_forgotten(postgres_db):
            postgres_db.connect()
            gc.collect()
        """
    )
    result = run()
    result.assert_outcomes(passed=3)
    result.stderr.no_fnmatch_line("*Warning*")


def test_several_databases_in_one_run(pytester: pytest.Pytester, run: Run) -> None:
    """The handle of the server and the test's database are apart: what one has, the other lacks."""
    pytester.makepyfile(
        """
        import psycopg

        def test_it(postgres_service, postgres_db):
            assert postgres_service.metadata["database_name"] != postgres_db.name
            assert postgres_service.port == postgres_db.handle.port
            with psycopg.connect(postgres_service.url) as connection:
                connection.execute("CREATE TABLE only_there ()")
            with postgres_db.connect() as connection:
                assert connection.execute("SELECT to_regclass('only_there')").fetchone() == (None,)
        """
    )
    run().assert_outcomes(passed=1)


def test_asked_for_while_running(pytester: pytest.Pytester, run: Run) -> None:
    """The fixture can be asked for by name as the test runs."""
    pytester.makepyfile(
        "def test_it(request): request.getfixturevalue('postgres_db').connect().execute('SELECT 1')"
    )
    run().assert_outcomes(passed=1)


def test_unittest_classes(pytester: pytest.Pytester, run: Run) -> None:
    """Methods of a `unittest.TestCase` each have a clean database."""
    pytester.makepyfile(
        """
        import unittest

        import pytest

        class TestShop(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def database(self, postgres_db):
                self.db = postgres_db

            def setUp(self):
                with self.db.connect() as connection:
                    connection.execute("CREATE TABLE t ()")

            def test_one(self):
                with self.db.connect() as connection:
                    connection.execute("DROP TABLE t")

            def test_two(self):
                with self.db.connect() as connection:
                    connection.execute("DROP TABLE t")
        """
    )
    run().assert_outcomes(passed=2)


# ------------------------------------------------------------------ URLs and drivers


def test_url_and_name_stay_the_same(pytester: pytest.Pytester, run: Run) -> None:
    """Within a worker every test has the same URL; no two workers share one."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_it(postgres_db, number, worker_id):
            with open("urls", "a") as file:
                file.write(f"{worker_id} {postgres_db.name} {postgres_db.url}\\n")
            with postgres_db.connect() as connection:
                connection.execute("CREATE TABLE t ()")
                (name,) = connection.execute("SELECT current_database()").fetchone()
            assert name == postgres_db.name
            assert postgres_db.url.endswith(f"/{name}")
        """
    )
    result = run("-n", "2", "--dist", "each")
    result.assert_outcomes(passed=8)
    lines = [line.split() for line in (pytester.path / "urls").read_text().splitlines()]
    assert len({tuple(line) for line in lines}) == 2
    assert len({name for _, name, _ in lines}) == 2


def test_drivers(pytester: pytest.Pytester, run: Run) -> None:
    """psycopg, asyncpg and SQLAlchemy with either connect with the URL that is made for them."""
    pytest.importorskip("asyncpg")
    pytest.importorskip("sqlalchemy")
    pytester.makepyfile(
        """
        import asyncio

        import asyncpg
        import psycopg
        from sqlalchemy import NullPool, create_engine, text
        from sqlalchemy.ext.asyncio import create_async_engine

        def test_psycopg(postgres_db):
            with psycopg.connect(postgres_db.url) as connection:
                assert connection.info.dbname == postgres_db.name

        def test_asyncpg(postgres_db):
            async def ask():
                connection = await asyncpg.connect(postgres_db.url_for("libpq"))
                try:
                    return await connection.fetchval("SELECT current_database()")
                finally:
                    await connection.close()
            assert asyncio.run(ask()) == postgres_db.name

        def test_sqlalchemy(postgres_db):
            engine = create_engine(postgres_db.url_for("psycopg"), poolclass=NullPool)
            with engine.begin() as connection:
                name = connection.execute(text("SELECT current_database()")).scalar_one()
            assert name == postgres_db.name

        def test_sqlalchemy_async(postgres_db):
            async def ask():
                engine = create_async_engine(postgres_db.url_for("asyncpg"), poolclass=NullPool)
                async with engine.connect() as connection:
                    return await connection.scalar(text("SELECT current_database()"))
            assert asyncio.run(ask()) == postgres_db.name
        """
    )
    run().assert_outcomes(passed=4)


@pytest.mark.parametrize("pool", ["poolclass=NullPool", "pool_pre_ping=True"])
def test_engine_for_the_whole_session(pytester: pytest.Pytester, run: Run, pool: str) -> None:
    """One SQLAlchemy engine made with the worker's URL serves all its tests, DDL or not."""
    pytest.importorskip("sqlalchemy")
    pytester.makepyfile(
        f"""
        import functools

        import pytest
        from sqlalchemy import NullPool, create_engine, text

        @functools.cache
        def engine_for(url):
            return create_engine(url, {pool})

        @pytest.fixture
        def engine(postgres_db):
            return engine_for(postgres_db.url_for("psycopg"))

        @pytest.mark.parametrize("number", range(5))
        def test_tables(engine, number):
            with engine.begin() as connection:
                connection.execute(text("CREATE TABLE t (i int)"))

        @pytest.mark.parametrize("number", range(5))
        def test_transactions(engine, number):
            with engine.begin() as connection:
                connection.execute(text("SELECT lo_from_bytea(1, 'x')"))

        def test_it_was_one_engine(engine):
            assert engine_for.cache_info().currsize == 1
            engine.dispose()
        """
    )
    run().assert_outcomes(passed=11)


# ----------------------------------------------------------------------------- xdist


@pytest.mark.slow
def test_four_workers_use_one_server(pytester: pytest.Pytester, run: Run, backend: str) -> None:
    """With `-n 4` one server is started, and it is gone when the run is over."""
    pytester.makepyfile(
        """
        import pytest

        def test_it(postgres_db, worker_id):
            with postgres_db.connect() as connection:
                (began,) = connection.execute("SELECT pg_postmaster_start_time()").fetchone()
            with open("servers", "a") as file:
                file.write(f"{worker_id}|{began}|{postgres_db.url}\\n")
        """
    )
    result = run("-n", "4", "--dist", "each")
    lines = [line.split("|") for line in (pytester.path / "servers").read_text().splitlines()]
    workers, servers, urls = (set(column) for column in zip(*lines, strict=True))
    assert result.ret == 0
    assert workers == {"gw0", "gw1", "gw2", "gw3"}
    assert len(servers) == 1
    assert len([line for line in result.outlines if line.startswith("postgres: ")]) == 1
    for url in urls:
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url, connect_timeout=5).close()


# --------------------------------------------------------------------------- reports


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "xdist"])
def test_failed_report_has_the_log(
    pytester: pytest.Pytester, run: Run, backend: str, workers: list[str]
) -> None:
    """A failed test's report ends with what the server wrote: here, the statement it refused."""
    pytester.makepyfile(
        """
        def test_it(postgres_db):
            with postgres_db.connect() as connection:
                connection.execute("SELECT 1 FROM nowhere")
        """
    )
    result = run(*workers)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*- cleanroom: log of postgres -*",
            '*ERROR:  relation "nowhere" does not exist*',
            "*STATEMENT:  SELECT 1 FROM nowhere",
        ]
    )


def test_killed_server_is_told_from_a_failing_test(
    pytester: pytest.Pytester, run: Run, backend: str
) -> None:
    """After the server was killed, tests fail at once, and say so with the end of its log."""
    pytester.makepyfile(
        """
        import pytest

        def test_kill(postgres_db, cleanroom_env):
            cleanroom_env.plugin("postgres").plugin.kill(postgres_db.handle)

        @pytest.mark.parametrize("number", range(2))
        def test_next(postgres_db, number):
            pass

        def test_other():
            pass
        """
    )
    result = run()
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(
        [
            f"E *ServiceError: service 'postgres' ({backend}): it stopped working during the *",
            "E *last lines of its log:",
            "E *database system is ready to accept connections",
        ]
    )


# ------------------------------------------------------------------ a server of others


@pytest.mark.slow
def test_server_of_somebody_else(
    pytester: pytest.Pytester,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    postgres_service: ServiceHandle,
) -> None:
    """In a server that somebody else runs, tests are as clean, and it is left as it was found."""
    monkeypatch.setenv("CLEANROOM_BACKEND", "external")
    monkeypatch.setenv("CLEANROOM_POSTGRES_URL", postgres_service.url)
    name = "a_database_with_a_name_of_40_characters_"
    (pytester.path / "cleanroom.toml").write_text(
        f"[services.postgres]\nplugin = 'postgres'\ndatabase_name = '{name}'\n"
    )
    pytester.makeconftest(
        """
        from cleanroom_plugin_postgres import template

        postgres_template = template(lambda t: t.run_script("CREATE TABLE base ()"))
        """
    )
    write = """
        import pytest

        @pytest.fixture({arguments})
        def postgres_template(postgres_template):
            postgres_template.run_script("CREATE TABLE more ()")
            return postgres_template

        @pytest.mark.parametrize("number", range(2))
        def test_it(postgres_db, number):
            with postgres_db.connect() as connection:
                connection.execute("ALTER TABLE more ADD spoiled int")
    """
    pytester.makepyfile(
        test_first=write.format(arguments="scope='session'"), test_second=write.format(arguments="")
    )

    def databases() -> list[tuple[object, ...]]:
        with psycopg.connect(postgres_service.url) as connection:
            return connection.execute("SELECT datname FROM pg_database ORDER BY 1").fetchall()

    before = databases()
    result = run("-n", "2", "--dist", "loadfile")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["postgres: external, version *"])
    assert databases() == before


# ------------------------------------------------------------------ --cleanroom-keep

KEEP = """
    import pytest

    def test_good(postgres_db):
        with postgres_db.connect() as connection:
            connection.execute("CREATE TABLE good ()")

    def test_bad(postgres_db):
        with postgres_db.connect() as connection:
            connection.execute("CREATE TABLE evidence AS SELECT 42 AS answer")
        raise AssertionError

    def test_next(postgres_db):
        with postgres_db.connect() as connection:
            connection.execute("CREATE TABLE evidence ()")

    @pytest.mark.xfail
    def test_expected(postgres_db):
        raise AssertionError
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_keep(
    pytester: pytest.Pytester, run: Run, backend: str, workers: list[str], tmp_path: Path
) -> None:
    """`--cleanroom-keep` keeps the failed test's database alone; the printed command ends it."""
    pytester.makepyfile(KEEP)
    result = run("--cleanroom-keep", *workers)
    result.assert_outcomes(passed=2, failed=1, xfailed=1)
    kept = [line for line in result.outlines if line.startswith("kept: ")]
    (command,) = (line for line in result.outlines if line.startswith("end it with: "))
    command = command.removeprefix("end it with: ")
    try:
        assert len(kept) == 1
        found = re.fullmatch(r"kept: test_keep\.py::test_bad: (postgresql://\S+)", kept[0])
        assert found, kept
        with psycopg.connect(found[1]) as connection:
            assert connection.execute("SELECT answer FROM evidence").fetchone() == (42,)
        runs = subprocess.run(
            [sys.executable, "-m", "cleanroom_runtime", "runs"], capture_output=True, text=True
        )
        assert command.split()[-1] in runs.stdout.split()
    finally:
        ended = subprocess.run(shlex.split(command), cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(found[1], connect_timeout=5).close()


def test_what_a_killed_worker_kept_stays(pytester: pytest.Pytester, run: Run) -> None:
    """The worker that takes the place of another one does not touch what that one has kept."""
    pytester.makepyfile(
        """
        import os, signal

        def write(database, text):
            with database.connect() as connection:
                connection.execute("CREATE TABLE note AS SELECT %s::text AS text", [text])

        def test_before(postgres_db):
            write(postgres_db, "before")
            assert not "kept"

        def test_that_kills_its_worker():
            os.kill(os.getpid(), signal.SIGKILL)

        def test_after(postgres_db):
            write(postgres_db, "after")
            assert not "kept"
        """
    )
    result = run("--cleanroom-keep", "-n", "1", "-p", "no:randomly")
    (command,) = (line for line in result.outlines if line.startswith("end it with: "))
    try:
        found = [line.partition("postgresql:") for line in result.outlines if line[:6] == "kept: "]
        notes = {}
        for test, scheme, rest in found:
            with psycopg.connect(scheme + rest) as connection:
                notes[test] = connection.execute("SELECT text FROM note").fetchone()
    finally:
        subprocess.run(shlex.split(command.removeprefix("end it with: ")), check=True)
    assert sorted(notes.values()) == [("after",), ("before",)]
    result.stdout.no_fnmatch_line("*STATEMENT:*")  # that failed and was none of the tests'


def test_nothing_is_kept_when_all_pass(pytester: pytest.Pytester, run: Run) -> None:
    """`--cleanroom-keep` without a failure leaves nothing behind, and prints no URL."""
    pytester.makepyfile("def test_it(postgres_service, postgres_db): print(postgres_service.url)")
    result = run("--cleanroom-keep", "-s")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("kept: *")
    (url,) = re.findall(r"postgresql://\S+", result.stdout.str())
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=5).close()


def test_failed_setup_of_another_fixture_counts(pytester: pytest.Pytester, run: Run) -> None:
    """A test whose later fixture failed has its database kept as well, and so has a subtest."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def seeded(postgres_db):
            raise RuntimeError

        def test_it(seeded):
            pass

        def test_parts(postgres_db, subtests):
            with subtests.test("part"):
                raise AssertionError
        """
    )
    result = run("--cleanroom-keep")
    (command,) = (line for line in result.outlines if line.startswith("end it with: "))
    ended = subprocess.run(shlex.split(command.removeprefix("end it with: ")))
    assert ended.returncode == 0
    result.stdout.fnmatch_lines(["kept: *::test_it: *_kept_1", "kept: *::test_parts: *_kept_2"])


# ------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("arguments", [[], ["-n", "1"]], ids=["alone", "xdist"])
def test_psycopg_without_libpq(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """Where psycopg finds no libpq, the error names the extra that brings one."""
    monkeypatch.setenv("PSYCOPG_IMPL", "c")  # which is not installed
    pytester.makepyfile("def test_it(postgres_db): pass\ndef test_other(): pass")
    result = run(*arguments)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "E *ConfigurationError: *psycopg cannot be used here: *",
            "E *hint: *pip install 'cleanroom-plugin-postgres[[]embedded[]]'*",
        ]
    )


def test_template_fixture_that_returns_nothing(pytester: pytest.Pytester, run: Run) -> None:
    """A fixture that forgets to return its template is told so."""
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def postgres_template(postgres_template):
            postgres_template.run_script("CREATE TABLE t ()")
        """
    )
    pytester.makepyfile("def test_it(postgres_db): pass")
    result = run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "E *ConfigurationError: *the fixture postgres_template gave None and not a template",
            "E *hint: end it with: return postgres_template",
        ]
    )


def test_several_declared_servers(pytester: pytest.Pytester, run: Run) -> None:
    """With several servers declared the fixtures serve the default one, and others go by name."""
    (pytester.path / "cleanroom.toml").write_text(
        """
        [services.main]
        plugin = "postgres"
        default = true
        [services.other]
        plugin = "postgres"
        """
    )
    pytester.makepyfile(
        """
        def test_main(postgres_db):
            assert postgres_db.handle.service_name == "main"

        def test_other(cleanroom_env, postgres_service):
            assert cleanroom_env["other"].port != postgres_service.port
        """
    )
    result = run()
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["main: process, *", "other: process, *"])


# ---------------------------------------------------------------------- what it cost


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "two workers"])
def test_what_was_replaced_is_reported(
    pytester: pytest.Pytester, run: Run, workers: list[str]
) -> None:
    """The report says how often databases were replaced, what that took, and why."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(8))
        def test_it(postgres_db, number):
            with postgres_db.connect() as connection:
                connection.execute("CREATE SCHEMA item")
        """
    )
    result = run(*workers)
    result.assert_outcomes(passed=8)
    # What the last test of each worker leaves is not made clean any more.
    times = 8 - max(1, len(workers))
    result.stdout.re_match_lines(
        [rf"postgres: replaced {times} times between tests, in \d+\.\d+ s: .*schema.* \({times}\)$"]
    )


def test_what_is_undone_in_place_is_not_reported(pytester: pytest.Pytester, run: Run) -> None:
    """Where nothing was replaced, the report does not speak of it."""
    pytester.makeconftest(
        """
        from cleanroom_plugin_postgres import template

        postgres_template = template(lambda made: made.run_script("CREATE TABLE item (id int)"))
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(3))
        def test_it(postgres_db, number):
            with postgres_db.connect() as connection:
                connection.execute("INSERT INTO item VALUES (1)")
        """
    )
    result = run()
    result.assert_outcomes(passed=3)
    result.stdout.no_fnmatch_line("*replaced*")


# ------------------------------------------------------------------------ this run's own


@pytest.mark.usefixtures("inner")
def test_fixtures_serve_this_very_run(
    postgres_service: ServiceHandle, pytester: pytest.Pytester
) -> None:
    """A nested run in this process has a server of its own, and leaves the outer run's alone."""
    with psycopg.connect(postgres_service.url) as before:
        pytester.makepyfile(
            """
            def test_it(postgres_db):
                with open("url", "w") as file:
                    file.write(postgres_db.url)
            """
        )
        result = pytester.runpytest_inprocess("-p", "no:randomly", "-p", "no:cacheprovider")
        result.assert_outcomes(passed=1)
        inner = (pytester.path / "url").read_text()
        assert f":{postgres_service.port}/" not in inner
        assert before.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(inner, connect_timeout=5).close()
    with psycopg.connect(postgres_service.url) as after:
        assert after.execute("SELECT 1").fetchone() == (1,)
