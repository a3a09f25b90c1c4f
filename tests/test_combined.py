"""Services that are combined: an API and its tests see the same databases, clean for every test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import redis

from cleanroom import ServiceHandle
from cleanroom_plugin_http import HttpPlugin
from cleanroom_plugin_redis import RedisPlugin
from tests.leftovers import command, gone_within, processes_of

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
OF_ANOTHER = """
import pytest
from cleanroom_plugin_postgres import postgres_fixtures, template

db_template = template(migrate="items.sql", service="db")
postgres_db = postgres_fixtures("db").db
wide_db = postgres_fixtures("db", scope="session").db


@pytest.fixture(autouse=True)
def written_elsewhere(wide_db):
    with wide_db.connect() as connection:
        connection.execute("INSERT INTO items (name) VALUES ('of the session')")
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


@pytest.mark.parametrize("conftest", [CONFTEST, OF_ANOTHER], ids=["the default", "another"])
def test_api_and_tests_see_the_same_clean_databases(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, conftest: str
) -> None:
    """What a test writes the API sees, and the other way round; the next test sees neither.

    So it is with a service that is not the default one, too, beside a database for the session.
    """
    monkeypatch.setenv("CLEANROOM_BACKEND", "process")
    folder: Path = pytester.path
    (folder / "api.py").write_text(API)
    (folder / "items.sql").write_text("CREATE TABLE items (id serial PRIMARY KEY, name text);")
    is_another, is_default = ("true", "false") if conftest == OF_ANOTHER else ("false", "true")
    (folder / "pyproject.toml").write_text(
        f"""
[tool.cleanroom.services.db]
plugin = "postgres"
default = {is_default}
[tool.cleanroom.services.cache]
plugin = "redis"
[tool.cleanroom.services.api]
plugin = "http"
command = ["{sys.executable}", "api.py", "{{port}}"]
env = {{ DATABASE_URL = "{{db.url}}", REDIS_URL = "{{cache.url}}" }}
[tool.cleanroom.services.main]
plugin = "postgres"
default = {is_another}
"""
    )
    pytester.makeconftest(conftest)
    pytester.makepyfile(SUITE)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=6)


API_IN_A_CONTAINER = r"""
import os, socket, subprocess

psql = subprocess.Popen(
    ["psql", "-XqAt", os.environ["DATABASE_URL"]],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
)
cache = ["redis-cli", "-h", os.environ["REDIS_HOST"], "-p", os.environ["REDIS_PORT"]]
cache += ["-n", os.environ["REDIS_NUMBER"]]


def query(statement):
    print(statement + ";", "\\echo .", sep="\n", file=psql.stdin, flush=True)
    return "".join(iter(psql.stdout.readline, ".\n")).split()


def keys():
    return subprocess.check_output([*cache, "keys", "*"], text=True).split()


with socket.create_server(("0.0.0.0", 8080)) as listener:
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            method, path, _ = lines.readline().decode().split()
            while lines.readline().strip():
                pass
            name = path.strip("/")
            if method == "POST":
                query("INSERT INTO items (name) VALUES ('" + name + "')")
                subprocess.check_output([*cache, "set", name, "1"])
            rows = query("SELECT name FROM items ORDER BY id")
            body = ",".join(rows) + " " + ",".join(sorted(keys()))
            head = "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            connection.sendall((head % len(body) + body).encode())
"""
MIXED = """
from urllib.parse import urlsplit

import psycopg
import pytest
import requests


@pytest.mark.parametrize("n", range(4))
def test_all_see_the_same(cleanroom_env, postgres_db, redis_db, n):
    backends = {name: cleanroom_env[name].metadata["backend"] for name in cleanroom_env}
    assert backends == {
        "db": "process", "cache": "container", "far": "container", "near": "process",
    }
    far, near = cleanroom_env["far"].url, cleanroom_env["near"].url
    assert requests.get(far, timeout=5).text == " "
    assert requests.post(far + "/a", timeout=5).text == "a a"
    requests.post(near + "/b", timeout=5)
    with postgres_db.connect() as connection:
        connection.execute("INSERT INTO items (name) VALUES ('c')")
    redis_db.client().set("d", 1)
    assert requests.get(far, timeout=5).text == "a,b,c a,b,d"
    assert requests.get(near, timeout=5).json() == {
        "rows": ["a", "b", "c"], "keys": ["a", "b", "d"],
    }


def test_note_the_run(cleanroom_env, request):
    from cleanroom_runtime import current_run

    request.config.rootpath.joinpath("run").write_text(current_run().id)
"""


def test_containers_and_processes_reach_each_other(
    pytester: pytest.Pytester, http_image: str, redis_image: str
) -> None:
    """An API in a container and one beside it use a store of each kind, as their tests do."""
    folder: Path = pytester.path
    (folder / "api.py").write_text(API)
    (folder / "items.sql").write_text("CREATE TABLE items (id serial PRIMARY KEY, name text);")
    (folder / "pyproject.toml").write_text(
        f"""
[tool.cleanroom.services.db]
plugin = "postgres"
backend = "process"
[tool.cleanroom.services.cache]
plugin = "redis"
image = "{redis_image}"
backend = "container"
[tool.cleanroom.services.near]
plugin = "http"
command = ["{sys.executable}", "api.py", "{{port}}"]
env = {{ DATABASE_URL = "{{db.url}}", REDIS_URL = "{{cache.url}}" }}
[tool.cleanroom.services.far]
plugin = "http"
image = "{http_image}"
port = 8080
command = ["-u", "-c", '''{API_IN_A_CONTAINER}''']
[tool.cleanroom.services.far.env]
DATABASE_URL = "{{db.url}}"
REDIS_HOST = "{{cache.host}}"
REDIS_PORT = "{{cache.port}}"
REDIS_NUMBER = "{{cache.database_name}}"
REDISCLI_AUTH = "{{cache.password}}"
"""
    )
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(MIXED)
    # Each worker has its own APIs, which must not be taken for the other's.
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n", "2")
    result.assert_outcomes(passed=5)
    gone_within(15, (folder / "run").read_text(), engine=True)


SETS_KEYS = """
import os, runpy
for name in ("CACHE", "OTHERS"):
    os.system("redis-cli -h $" + name + "_HOST -p $" + name + "_PORT set " + name + " 1")
runpy.run_path("/srv/server.py")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the engine runs in a virtual machine")
def test_view_of_what_runs_on_this_machine(http_image: str) -> None:
    """By hand, too, an API in a container is led to what runs on this machine, until it stops."""
    store = RedisPlugin("cache", backend="process")
    cache = store.start()
    others = RedisPlugin("others", backend="external", url=cache.url)
    used = others.start()
    assert HttpPlugin("near", command=["true"]).view_of(cache) == cache
    api = HttpPlugin("api", http_image, port=8080, command=["-c", SETS_KEYS]).with_health_check()
    api = api.with_env("REDISCLI_AUTH", cache.metadata["password"])
    for handle in (cache, used):
        seen = api.view_of(handle)
        assert f"{seen.host}:{seen.port}/" in seen.url
        name = handle.service_name.upper()
        api = api.with_env(f"{name}_HOST", seen.host).with_env(f"{name}_PORT", str(seen.port))
    api.stop(api.start())
    with redis.Redis.from_url(cache.url) as client:
        assert client.mget("CACHE", "OTHERS") == [b"1", b"1"]
        client.delete("CACHE", "OTHERS")
    for plugin, handle in ((others, used), (store, cache)):
        before = relays_to(cache)
        plugin.stop(handle)
        assert len(relays_to(cache)) == len(before) - 1
    assert relays_to(cache) == []


def relays_to(handle: ServiceHandle) -> list[str]:
    commands = map(command, processes_of(handle.id.partition("-")[0]))
    return [each for each in commands if "_relay.py" in each and each.endswith(str(handle.port))]
