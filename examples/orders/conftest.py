"""One database per test, with the shop's tables and seed data in it."""

from collections.abc import Iterator

import psycopg
import pytest

from cleanroom_plugin_postgres import template

# Run once, in this order; every test starts from a database that looks like the result.
postgres_template = template(migrate=["migrations/*.sql", "seed/*.sql"])


@pytest.fixture
def shop(postgres_db) -> Iterator[psycopg.Connection]:
    """A connection to the test's own database, closed after the test."""
    with postgres_db.connect() as connection:
        yield connection
