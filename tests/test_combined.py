"""Services that are combined: an API and its tests see the same databases, clean for every test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

API = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
import psycopg, redis

connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
cache = redis.Redis.from_url(os.environ["REDIS_URL"])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        rows = [row[0] for row in connection.execute("SELECT name FROM items ORDER BY id")]
        self.answer({"rows": rows, "keys": sorted(key.decode() for key in cache.keys())})

    def do_POST(self):
        name = self.path.strip("/")
        connection.execute("INSERT INTO items (name) VALUES (%s)", [name])
        cache.set(name, 1)
        self.answer({})

    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
CONFTEST = """
from cleanroom_plugin_postgres import template

postgres_template = template(migrate="items.sql")
"""
SUITE = """
import pytest

NOTHING = {"rows": [], "keys": []}


@pytest.mark.parametrize("n", range(3))
def test_only_the_api(http_service, n):
    assert http_service.session.get("/").json() == NOTHING
    http_service.session.post("/a")
    assert http_service.session.get("/").json() == {"rows": ["a"], "keys": ["a"]}


@pytest.mark.parametrize("n", range(3))
def test_both(http_service, postgres_db, redis_db, n):
    assert http_service.session.get("/").json() == NOTHING
    with postgres_db.connect() as connection:
        connection.execute("INSERT INTO items (name) VALUES ('x')")
    http_service.session.post("/y")
    assert http_service.session.get("/").json() == {"rows": ["x", "y"], "keys": ["y"]}
    with postgres_db.connect() as connection:
        rows = connection.execute("SELECT id, name FROM items").fetchall()
    assert rows == [(1, "x"), (2, "y")]
    assert redis_db.client().get("y") == b"1"
"""


def test_api_and_tests_see_the_same_clean_databases(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a test writes the API sees, and the other way round; the next test sees neither."""
    monkeypatch.setenv("CLEANROOM_BACKEND", "process")
    folder: Path = pytester.path
    (folder / "api.py").write_text(API)
    (folder / "items.sql").write_text("CREATE TABLE items (id serial PRIMARY KEY, name text);")
    (folder / "pyproject.toml").write_text(
        f"""
[tool.cleanroom.services.db]
plugin = "postgres"
[tool.cleanroom.services.cache]
plugin = "redis"
[tool.cleanroom.services.api]
plugin = "http"
command = ["{sys.executable}", "api.py", "{{port}}"]
env = {{ DATABASE_URL = "{{db.url}}", REDIS_URL = "{{cache.url}}" }}
"""
    )
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(SUITE)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=6)
