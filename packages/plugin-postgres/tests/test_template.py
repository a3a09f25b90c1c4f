from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., pytest.RunResult]


def write(path: Path, text: str) -> None:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


MIGRATIONS = {
    "migrations/1_customers.sql": "CREATE TABLE customer (id serial PRIMARY KEY);",
    "migrations/2_orders.sql": "CREATE TABLE orders (customer int REFERENCES customer);",
    "seed/data.sql": "INSERT INTO customer DEFAULT VALUES; INSERT INTO orders VALUES (1);",
}

COUNT = """
    import pytest

    @pytest.mark.parametrize("number", range(3))
    def test_it(postgres_db, number):
        with postgres_db.connect() as connection:
            rows = connection.execute("SELECT count(*) FROM orders").fetchone()
            assert rows == (1,)
            connection.execute("INSERT INTO customer DEFAULT VALUES")
            connection.execute("INSERT INTO orders VALUES (2)")
"""


# ----------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    "migrate",
    [
        "['migrations/*.sql', 'seed/*.sql']",
        "('migrations/*.sql', pathlib.Path('seed/data.sql'))",
        "[str(pathlib.Path(__file__).parent / 'migrations/*.sql'), 'seed/*']",
    ],
)
def test_files(pytester: pytest.Pytester, run: Run, migrate: str) -> None:
    """Globs of SQL files, relative or not, run in the order given, each glob's files sorted."""
    for name, text in MIGRATIONS.items():
        write(pytester.path / name, text)
    pytester.makeconftest(
        f"""
        import pathlib

        from cleanroom_plugin_postgres import template

        postgres_template = template(migrate={migrate})
        """
    )
    pytester.makepyfile(COUNT)
    run().assert_outcomes(passed=3)


def test_files_are_found_from_the_conftest(pytester: pytest.Pytester, run: Run) -> None:
    """A glob is relative to the folder of the conftest, wherever pytest was started."""
    write(
        pytester.path / "shop/schema.sql",
        "CREATE TABLE orders (); INSERT INTO orders DEFAULT VALUES",
    )
    write(
        pytester.path / "shop/tests/conftest.py",
        """
        from cleanroom_plugin_postgres import template

        postgres_template = template(migrate="../schema.sql")
        """,
    )
    write(
        pytester.path / "shop/tests/test_it.py",
        """
        def test_it(postgres_db):
            with postgres_db.connect() as connection:
                assert connection.execute("SELECT count(*) FROM orders").fetchone() == (1,)
        """,
    )
    run("shop/tests").assert_outcomes(passed=1)


def test_glob_that_matches_nothing(pytester: pytest.Pytester, run: Run) -> None:
    """A glob without a file is an error that names the glob and the folder."""
    pytester.makeconftest(
        """
        from cleanroom_plugin_postgres import template

        postgres_template = template(migrate="migrtions/*.sql")
        """
    )
    pytester.makepyfile("def test_it(postgres_db): pass")
    result = run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [f"E *ValidationError: migrate: 'migrtions/[*].sql' matches no file in {pytester.path}"]
    )


def test_failing_file_is_the_same_clear_error_for_all(
    pytester: pytest.Pytester, run: Run, backend: str
) -> None:
    """A statement that fails is run once; every worker's tests name the file, line and reason.

    To keep what it makes for later runs, a process is migrated before that.
    """
    write(pytester.path / "migrations/1.sql", "CREATE TABLE customer (id int);")
    write(
        pytester.path / "migrations/2.sql",
        "-- what is bought\nSELECT nextval('runs');\nALTER TABLE custmer\n  ADD name text;\n",
    )
    pytester.makeconftest(
        """
        from cleanroom_plugin_postgres import template

        def migrate(template):
            with open("runs", "a") as file:
                file.write("ran\\n")
            template.run_script("CREATE SEQUENCE runs")
            for file in sorted((pathlib.Path(__file__).parent / "migrations").iterdir()):
                template.run_script(file)

        import pathlib
        postgres_template = template(migrate, inputs=["migrations/*.sql"])
        """
    )
    pytester.makepyfile("def test_it(postgres_db): pass\ndef test_other(): pass")
    result = run("-n", "2", "--dist", "each")
    result.assert_outcomes(passed=2, errors=2)
    assert (pytester.path / "runs").read_text() == "ran\n" * (2 if backend == "process" else 1)
    place = f'{pytester.path}/migrations/2.sql, line 3: relation "custmer" does not exist'
    told = [line for line in result.outlines if line.startswith("E  ") and place in line]
    assert len([line for line in told if "ServiceError: service 'postgres': " in line]) == 2


# -------------------------------------------------------------------------- callables


@pytest.mark.slow
def test_callable_runs_once_for_all_workers(
    pytester: pytest.Pytester, run: Run, backend: str
) -> None:
    """With four workers a migration runs once, and each worker's databases have what it made."""
    pytester.makeconftest(
        """
        from cleanroom_plugin_postgres import template

        def migrate(template):
            with open("runs", "a") as file:
                file.write("ran\\n")
            with template.connect() as connection:
                connection.execute("CREATE TABLE orders ()")
                connection.execute("INSERT INTO orders DEFAULT VALUES")

        postgres_template = template(migrate=migrate)
        """
    )
    pytester.makepyfile(
        """
        def test_it(postgres_db):
            with postgres_db.connect() as connection:
                assert connection.execute("SELECT count(*) FROM orders").fetchone() == (1,)
        """
    )
    result = run("-n", "4", "--dist", "each")
    result.assert_outcomes(passed=4)
    assert (pytester.path / "runs").read_text() == "ran\n"


def test_alembic(pytester: pytest.Pytester, run: Run) -> None:
    """Alembic migrates the template as it migrates any database, given its URL."""
    pytest.importorskip("alembic")
    write(
        pytester.path / "alembic/env.py",
        """
        from alembic import context
        from sqlalchemy import create_engine

        engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
        with engine.connect() as connection:  # and its pool keeps one open
            context.configure(connection=connection)
            with context.begin_transaction():
                context.run_migrations()
        """,
    )
    for number, before, body in [
        (1, None, "op.create_table('orders', sa.Column('id', sa.Integer))"),
        (2, "1", "op.execute('INSERT INTO orders VALUES (1)')"),
    ]:
        write(
            pytester.path / f"alembic/versions/{number}.py",
            f"""
            import sqlalchemy as sa
            from alembic import op

            revision = "{number}"
            down_revision = {before!r}

            def upgrade():
                {body}
            """,
        )
    pytester.makeconftest(
        """
        from pathlib import Path

        from alembic import command
        from alembic.config import Config

        from cleanroom_plugin_postgres import template

        def migrate(template):
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent / "alembic"))
            config.set_main_option("sqlalchemy.url", template.url_for("psycopg"))
            command.upgrade(config, "head")

        postgres_template = template(migrate, inputs=["alembic/versions/*.py"])
        """
    )
    pytester.makepyfile(
        """
        def test_it(postgres_db):
            with postgres_db.connect() as connection:
                (version,) = connection.execute("SELECT version_num FROM alembic_version")
                assert version == ("2",)
                assert connection.execute("SELECT count(*) FROM orders").fetchone() == (1,)
        """
    )
    run(tidy=False).assert_outcomes(passed=1)


@pytest.mark.slow
def test_failing_callable_says_where(pytester: pytest.Pytester, run: Run) -> None:
    """An error in a callable comes with the place in the user's own code, also in other workers."""
    pytester.makeconftest(
        """
        import json

        from cleanroom_plugin_postgres import template

        def migrate(template):
            template.run_script("CREATE TABLE t ()")
            json.loads("{")

        postgres_template = template(migrate)
        """
    )
    pytester.makepyfile("def test_it(postgres_db): pass")
    result = run("-n", "2", "--dist", "each")
    result.assert_outcomes(errors=2)
    place = f"the migration failed at {pytester.path}/conftest.py:7: JSONDecodeError: "
    assert len([line for line in result.outlines if line[0:1] == "E" and place in line]) == 2


@pytest.mark.slow
def test_migration_is_taken_over_from_a_worker_that_died(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Where the worker that migrates is killed, another one begins again, and nothing is lost."""
    pytester.makeconftest(
        """
        import os
        import signal
        from pathlib import Path

        from cleanroom_plugin_postgres import template

        def migrate(template):
            template.run_script("CREATE TABLE orders (); INSERT INTO orders DEFAULT VALUES")
            if not Path("died").exists():
                Path("died").touch()
                os.kill(os.getpid(), signal.SIGKILL)

        postgres_template = template(migrate)
        """
    )
    pytester.makepyfile(COUNT.replace("VALUES (2)", "DEFAULT VALUES").replace("customer", "orders"))
    result = run("-n", "2")
    assert (pytester.path / "died").exists()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["worker 'gw*' crashed while running 'test_*'"])


def test_callables_are_told_apart(pytester: pytest.Pytester, run: Run) -> None:
    """Templates of one conftest's helper, made with different values, are different templates."""
    pytester.makeconftest(
        """
        from functools import partial

        from cleanroom_plugin_postgres import template

        def create(name, template):
            template.run_script(f"CREATE TABLE {name} ()")

        red, blue = [template(partial(create, name)) for name in ("red", "blue")]
        green, grey = [template(lambda t, n=name: create(n, t)) for name in ("green", "grey")]
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(params=["red", "blue", "green", "grey"])
        def color(request):
            return request.param

        @pytest.fixture
        def postgres_template(request, color):
            return request.getfixturevalue(color)

        def test_it(postgres_db, color):
            with postgres_db.connect() as connection:
                query = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                assert connection.execute(query).fetchall() == [(color,)]
        """
    )
    run().assert_outcomes(passed=4)


def test_settings_and_grants_of_the_template_are_in_every_clone(
    pytester: pytest.Pytester, run: Run
) -> None:
    """What a migration sets for its database, and grants on it, holds in every test's database."""
    pytester.makeconftest(
        """
        from cleanroom_plugin_postgres import template

        def migrate(template):
            template.run_script(
                f"ALTER DATABASE {template.name} SET work_mem TO '1234kB';"
                f"REVOKE CONNECT ON DATABASE {template.name} FROM PUBLIC;"
            )

        postgres_template = template(migrate)
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(2))
        def test_it(postgres_db, number):
            with postgres_db.connect() as connection:
                assert connection.execute("SHOW work_mem").fetchone() == ("1234kB",)
                query = "SELECT has_database_privilege('pg_monitor', %s, 'CONNECT')"
                assert connection.execute(query, [postgres_db.name]).fetchone() == (False,)
                connection.execute(f"ALTER DATABASE {postgres_db.name} RESET work_mem")
        """
    )
    run().assert_outcomes(passed=2)


def test_template_that_no_test_asks_for(pytester: pytest.Pytester, run: Run) -> None:
    """A conftest that makes a template costs no server, and no import of a driver."""
    pytester.makeconftest(
        """
        from cleanroom_plugin_postgres import template

        postgres_template = template(migrate="nothing/*.sql")
        """
    )
    pytester.makepyfile(
        """
        import sys

        def test_it():
            heavy = {"psycopg", "testcontainers", "docker", "cleanroom_plugin_postgres._plugin"}
            assert not heavy & set(sys.modules)
        """
    )
    result = run()
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*- cleanroom -*")


def test_no_template(pytester: pytest.Pytester, run: Run) -> None:
    """Where nothing is migrated, nothing is imported that migrates."""
    pytester.makepyfile(
        """
        import sys

        def test_it(postgres_db):
            names = {name.rpartition("plugin_postgres.")[2] for name in sys.modules}
            assert "_isolation" in names
            assert not {"_template", "_migrate", "_scripts", "_sql"} & names
        """
    )
    run().assert_outcomes(passed=1)


# ------------------------------------------------------------- overriding the fixture


def test_plain_override(pytester: pytest.Pytester, run: Run) -> None:
    """A fixture that overrides `postgres_template` may write to it; each worker does it once."""
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def postgres_template(postgres_template):
            with open("runs", "a") as file:
                file.write("ran\\n")
            connection = postgres_template.connect()  # left open
            connection.execute("CREATE TABLE orders ()")
            connection.execute("INSERT INTO orders DEFAULT VALUES")
            connection.commit()
            return postgres_template
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(3))
        def test_it(postgres_db, number):
            with postgres_db.connect() as connection:
                assert connection.execute("SELECT count(*) FROM orders").fetchone() == (1,)
                connection.execute("INSERT INTO orders DEFAULT VALUES")
        """
    )
    result = run("-n", "2", "--dist", "each")
    result.assert_outcomes(passed=6)
    assert (pytester.path / "runs").read_text() == "ran\n" * 2


LOOK = """
    import pytest

    @pytest.mark.parametrize("number", range(2))
    def test_it(postgres_db, number):
        with postgres_db.connect() as connection:
            query = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            tables = sorted(name for name, in connection.execute(query))
        assert tables == {tables!r}
"""


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("order", [["top", "one", "two"], ["two", "one", "top"]])
def test_overrides_in_folders_do_not_see_each_other(
    pytester: pytest.Pytester, run: Run, order: list[str], shared: bool
) -> None:
    """Each folder's override builds on what is above it, and adds to no other's databases."""
    override = """
        import pytest

        @pytest.fixture(scope={scope!r})
        def postgres_template(postgres_template):
            postgres_template.run_script("CREATE TABLE {name} ()")
            yield postgres_template
    """
    if shared:
        pytester.makeconftest(
            """
            from cleanroom_plugin_postgres import template

            postgres_template = template(lambda t: t.run_script("CREATE TABLE base ()"))
            """
        )
    else:
        pytester.makeconftest(override.format(scope="session", name="base").replace("        ", ""))
    write(pytester.path / "one/conftest.py", override.format(scope="session", name="one"))
    write(pytester.path / "two/conftest.py", override.format(scope="function", name="two"))
    for name, tables in [("top", ["base"]), ("one", ["base", "one"]), ("two", ["base", "two"])]:
        write(pytester.path / name / f"test_{name}.py", LOOK.replace("{tables!r}", repr(tables)))
    run(*order).assert_outcomes(passed=6)


def test_failed_override_leaves_nothing(pytester: pytest.Pytester, run: Run) -> None:
    """What an override wrote before it failed is in nobody's database."""
    write(
        pytester.path / "one/conftest.py",
        """
        import pytest

        @pytest.fixture(scope="session")
        def postgres_template(postgres_template):
            postgres_template.run_script("CREATE TABLE half ()")
            raise RuntimeError("the other half")
        """,
    )
    write(pytester.path / "one/test_one.py", "def test_it(postgres_db): pass")
    write(pytester.path / "two/test_two.py", LOOK.replace("{tables!r}", "[]"))
    write(
        pytester.path / "two/test_none_left.py",
        """
        def test_it(postgres_db):
            with postgres_db.connect() as connection:
                query = "SELECT datname FROM pg_database WHERE strpos(datname, '_template_') > 0"
                assert connection.execute(query).fetchall() == []
        """,
    )
    result = run("one", "two")
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["E *RuntimeError: the other half"])


def test_writing_to_a_template_elsewhere(pytester: pytest.Pytester, run: Run) -> None:
    """A test, or a fixture of another name, cannot write to the template, and is told how to."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="session")
        def seeded(postgres_template):
            postgres_template.run_script("CREATE TABLE t ()")

        def test_fixture(seeded, postgres_db):
            pass

        def test_it(postgres_template, postgres_db):
            postgres_template.connect()
        """
    )
    result = run()
    result.assert_outcomes(failed=1, errors=1)
    told = [line for line in result.outlines if "ServiceError: service 'postgres': " in line]
    assert len([line for line in told if "the template is sealed" in line]) >= 2
    result.stdout.fnmatch_lines(["E *hint: write to it in a fixture named postgres_template*"])


def test_template_has_no_password_in_its_repr(pytester: pytest.Pytester, run: Run) -> None:
    """Neither template nor database shows a password, and looking at a template makes no draft."""
    pytester.makepyfile(
        """
        def test_it(postgres_template, postgres_db):
            password = postgres_db.handle.metadata["password"]
            assert password not in repr(postgres_template) + repr(postgres_db)
            assert not postgres_template.is_draft
        """
    )
    run().assert_outcomes(passed=1)


def test_init_scripts_come_first(pytester: pytest.Pytester, run: Run) -> None:
    """A template builds on what the init scripts of its service made."""
    pytester.makeconftest(
        """
        import pytest

        from cleanroom_plugin_postgres import PostgresPlugin, template

        @pytest.fixture(scope="session")
        def postgres_service(cleanroom_env):
            plugin = PostgresPlugin("mine").with_init_script("CREATE TABLE first ()")
            cleanroom_env.register(plugin)
            return cleanroom_env["mine"]

        postgres_template = template(lambda t: t.run_script("ALTER TABLE first ADD second int"))
        """
    )
    pytester.makepyfile(
        "def test_it(postgres_db): postgres_db.connect().execute('SELECT second FROM first')"
    )
    result = run()
    result.assert_outcomes(passed=1)
    result.stderr.no_fnmatch_line("*Warning*")
