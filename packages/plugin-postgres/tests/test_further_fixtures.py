"""Fixtures that `postgres_fixtures` makes: for other services, several versions, other scopes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.grounds import find_ground

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def declared(pytester: pytest.Pytester) -> None:
    """A suite with two declared servers, of which one is the default."""
    (pytester.path / "cleanroom.toml").write_text(
        """
        [services.main]
        plugin = "postgres"
        default = true
        [services.reporting]
        plugin = "postgres"
        [services.cache]
        plugin = "redis"
        """
    )


@pytest.mark.usefixtures("declared")
def test_another_declared_service(pytester: pytest.Pytester, run: Run) -> None:
    """One line makes a clean database of another service, with the template named for it."""
    (pytester.path / "facts.sql").write_text("CREATE TABLE fact (id serial, what text);")
    pytester.makeconftest(
        """
        import pytest
        from cleanroom_plugin_postgres import postgres_fixtures, template

        reporting_db = postgres_fixtures("reporting").db
        reporting_service = postgres_fixtures("reporting").service
        reporting_template = template("facts.sql", service="reporting")

        main_too = postgres_fixtures("main").db
        """
    )
    pytester.makepyfile(
        """
        import pytest

        URLS = set()

        @pytest.mark.parametrize("number", range(3))
        def test_both(postgres_db, reporting_db, reporting_service, number):
            assert postgres_db.handle.service_name == "main"
            assert reporting_db.handle.id == reporting_service.id != postgres_db.handle.id
            assert reporting_db.handle.port == reporting_service.port != postgres_db.handle.port
            with reporting_db.connect() as connection:
                connection.execute("INSERT INTO fact (what) VALUES ('seen')")
                assert connection.execute("SELECT id FROM fact").fetchall() == [(1,)]
            with postgres_db.connect() as connection:
                connection.execute("CREATE TABLE fact ()")
            URLS.add(reporting_db.url)

        def test_the_url_stays():
            assert len(URLS) == 1

        def test_the_default_one_by_its_name(postgres_db, main_too):
            assert main_too.url == postgres_db.url
        """
    )
    (pytester.mkdir("deeper") / "test_override.py").write_text(
        """
import pytest

@pytest.fixture(scope="module")
def reporting_template(reporting_template):
    reporting_template.run_script("INSERT INTO fact (what) VALUES ('before');")
    return reporting_template

@pytest.mark.parametrize("number", range(2))
def test_it(reporting_db, number):
    with reporting_db.connect() as connection:
        assert connection.execute("DELETE FROM fact RETURNING what").fetchall() == [("before",)]
"""
    )
    result = run()
    result.assert_outcomes(passed=7)
    result.stdout.fnmatch_lines(["cleanroom: main: process *", "cleanroom: reporting: process *"])


def test_several_versions(
    pytester: pytest.Pytester,
    run: Run,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A suite runs on several versions, with its templates, by one line for `postgres_service`."""
    monkeypatch.setenv("CLEANROOM_BACKEND", "process")
    majors = [find_ground(name, request).image[9:] for name in ("embedded", "installed")]
    plugins = ", ".join(f"PostgresPlugin('pg{major}', 'postgres:{major}')" for major in majors)
    pytester.makeconftest(
        f"""
        from cleanroom_plugin_postgres import PostgresPlugin, postgres_fixtures, template

        versions = [{plugins}]
        postgres_service = postgres_fixtures(*versions).service
        postgres_template = template(lambda t: t.run_script("CREATE TABLE item ()"))
        old_db = postgres_fixtures(versions[-1]).db
        either_db = postgres_fixtures(*versions).db
        """
    )
    pytester.makepyfile(
        f"""
        def test_default(postgres_db):
            with postgres_db.connect() as connection:
                assert connection.execute("DELETE FROM item").rowcount == 0
                print("served by", connection.info.server_version // 10000)

        def test_either(either_db):
            with either_db.connect() as connection:
                print("either", connection.info.server_version // 10000)

        def test_one(old_db):
            assert old_db.handle.metadata["version"].startswith("{majors[-1]}.")
        """
    )
    result = run("-s", "-v")
    result.assert_outcomes(passed=5)
    for major in majors:
        result.stdout.fnmatch_lines([f"*test_default[[]pg{major}[]] served by {major}*"])
        result.stdout.fnmatch_lines([f"*test_either[[]pg{major}[]] either {major}*"])


def test_another_scope(pytester: pytest.Pytester, run: Run) -> None:
    """A database for a module keeps what its tests write, beside theirs, and is then clean."""
    pytester.makeconftest(
        """
        from cleanroom_plugin_postgres import postgres_fixtures, template

        postgres_template = template(lambda t: t.run_script("CREATE TABLE item (id serial)"))
        module_db = postgres_fixtures(scope="module").db
        """
    )
    suite = """
        import pytest

        URLS = set()

        @pytest.mark.parametrize("number", range(1, 4))
        def test_it(module_db, postgres_db, number):
            with module_db.connect() as connection:
                connection.execute("INSERT INTO item DEFAULT VALUES")
                rows = connection.execute("SELECT id FROM item ORDER BY id").fetchall()
            assert rows == [(n,) for n in range(1, number + 1)]
            with postgres_db.connect() as connection:
                connection.execute("INSERT INTO item DEFAULT VALUES")
                assert connection.execute("SELECT id FROM item").fetchall() == [(1,)]
            assert module_db.url != postgres_db.url
            print("at", postgres_db.name)
    """
    alone = """
        def test_it(postgres_db):
            print("at", postgres_db.name)
    """
    pytester.makepyfile(test_a=suite, test_b=suite, test_c=alone)
    result = run("-s")
    result.assert_outcomes(passed=7)
    names = {line.split()[-1] for line in result.outlines if "at " in line and "test_" in line}
    assert len(names) == 1


@pytest.mark.usefixtures("declared")
def test_wrong_services(pytester: pytest.Pytester, run: Run) -> None:
    """A name that is not declared, one of another plugin, and one that is taken are errors."""
    pytester.makeconftest(
        """
        from cleanroom_plugin_postgres import PostgresPlugin, postgres_fixtures

        unknown_db = postgres_fixtures("reprting").db
        other_db = postgres_fixtures("cache").db
        taken_db = postgres_fixtures(PostgresPlugin("main")).db
        """
    )
    pytester.makepyfile(
        """
        def test_unknown(unknown_db): ...
        def test_other(other_db): ...
        def test_taken(taken_db): ...
        """
    )
    result = run()
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(
        [
            "*ConfigurationError: *no such service*",
            "*did you mean 'reporting'*",
            "*ConfigurationError: *it is of plugin 'redis', not 'postgres'*",
            "*use the fixtures of its own plugin*",
            "*ConfigurationError: *another service has this name*",
        ]
    )
