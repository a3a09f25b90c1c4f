"""Cleanroom with each of its backends, and the floors below which nothing can go."""

from __future__ import annotations

from dataclasses import replace

from benchmarks._contenders import IMAGE, Contender, missing_image

_OURS = """\
import pytest


@pytest.fixture
def connection(postgres_db):
    with postgres_db.connect() as connection:
        yield connection
"""

_OUR_TEMPLATE = """\

from cleanroom_plugin_postgres import template  # noqa: E402

postgres_template = template(migrate=["migrations/*.sql"])
"""

_CONNECT = """\
import os

import psycopg
import pytest


@pytest.fixture
def connection():
    with psycopg.connect(os.environ["BENCH_SERVER_URL"]) as connection:
        yield connection
"""

_NOT_ISOLATED = """\
import os
import uuid
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

URL = make_conninfo(os.environ["BENCH_SERVER_URL"], host=os.environ["BENCH_SERVER_SOCKET"])


@pytest.fixture(scope="session")
def migrated():
    name = f"shared_{uuid.uuid4().hex}"
    url = make_conninfo(URL, dbname=name)
    with psycopg.connect(URL, autocommit=True) as maintenance:
        maintenance.execute(f"CREATE DATABASE {name}")
        with psycopg.connect(url) as connection:
            for file in sorted(Path("migrations").glob("*.sql")):
                connection.execute(file.read_text())
        yield url
        maintenance.execute(f"DROP DATABASE {name}")


@pytest.fixture
def connection(migrated):
    with psycopg.connect(migrated) as connection:
        yield connection
"""

_BY_HAND = """\
import os
import uuid
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

URL = os.environ["BENCH_SERVER_URL"]


@pytest.fixture(scope="session")
def maintenance():
    with psycopg.connect(URL, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def template(maintenance):
    name = f"by_hand_{uuid.uuid4().hex}"
    maintenance.execute(f"CREATE DATABASE {name}")
    with psycopg.connect(make_conninfo(URL, dbname=name)) as connection:
        for file in sorted(Path("migrations").glob("*.sql")):
            connection.execute(file.read_text())
    yield name
    maintenance.execute(f"DROP DATABASE {name}")


@pytest.fixture
def connection(maintenance, template):
    name = f"{template}_test"
    maintenance.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    with psycopg.connect(make_conninfo(URL, dbname=name)) as connection:
        yield connection
    maintenance.execute(f"DROP DATABASE {name} WITH (FORCE)")
"""


def _ours(tables: int) -> str:
    return _OURS + (_OUR_TEMPLATE if tables else "")


BARE = Contender(
    name="bare pytest, imports psycopg",
    environment="bare",
    conftest=lambda tables: "",
    kind="nothing",
)

CONNECT = Contender(
    name="psycopg.connect, server runs",
    environment="bare",
    conftest=lambda tables: _CONNECT,
    kind="connects",
    needs_server=True,
)

NOT_ISOLATED = Contender(
    name="the same by socket, nothing isolated, server runs",
    environment="bare",
    conftest=lambda tables: _NOT_ISOLATED,
    needs_server=True,
)
"""What only reads, or rolls back, leaves its database to the next one as it was.

It connects as ours does, by the server's unix socket.
"""

BY_HAND = Contender(
    name="CREATE DATABASE TEMPLATE by hand, server runs",
    environment="bare",
    conftest=lambda tables: _BY_HAND,
    needs_server=True,
    slow_tests=True,
)

PROCESS = Contender(
    name="cleanroom, process",
    environment="cleanroom",
    conftest=_ours,
    variables={"CLEANROOM_BACKEND": "process"},
)

NOT_AHEAD = replace(
    PROCESS,
    name="cleanroom, process, nothing launched ahead",
    variables={**PROCESS.variables, "CLEANROOM_AHEAD": "0"},
)

CONTAINER = Contender(
    name="cleanroom, container",
    environment="cleanroom",
    conftest=_ours,
    settings=f'\n[tool.cleanroom.services.db]\nplugin = "postgres"\nimage = "{IMAGE}"\n',
    variables={"CLEANROOM_BACKEND": "container", "BENCH_IMAGE": IMAGE},
    slow_tests=True,
    missing=missing_image,
)

OURS = {"process": PROCESS, "container": CONTAINER}
