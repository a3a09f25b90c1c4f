"""The fixtures `postgres_service`, `postgres_template` and `postgres_db`.

Nothing is imported here until a test asks: this module is loaded in every pytest run.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from cleanroom_plugin_postgres import _fixtures

postgres_service, postgres_template, postgres_db = _fixtures.postgres_fixtures()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Give each fixture that overrides one of a template what it wrote, and nobody else."""
    if not _overrides_a_template(fixturedef):
        return (yield)
    from cleanroom_plugin_postgres import Template, _template

    with _template.drafts():
        result = yield
        if not isinstance(result, Template) or not result.is_draft or not fixturedef.cached_result:
            return result
        own = result.split_off()
        fixturedef.cached_result = (own, fixturedef.cached_result[1], None)
    if request.scope != "session":
        fixturedef.addfinalizer(lambda: _template.drop(own))
    return own


def _overrides_a_template(fixturedef: pytest.FixtureDef[object]) -> bool:
    name = fixturedef.argname
    if name == "postgres_template":
        return fixturedef.func.__module__ != _fixtures.__name__  # else it is the one that gives it
    return name.endswith("_template") and name in fixturedef.argnames
