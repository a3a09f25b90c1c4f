"""Settings, users and modules mean the same on every backend; what is wrong is said."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import redis

from cleanroom import CleanroomEnvironment, ConfigurationError, ServiceError, ValidationError
from cleanroom_plugin_redis import Database, RedisPlugin
from tests.grounds import cannot_run
from tests.leftovers import left_of_service
from tests.redis_grounds import Ground, Start

# --------------------------------------------------------------------- settings


def test_what_is_declared(tmp_path: Path) -> None:
    """Password, settings and users can be declared in a file; what is wrong there names it."""
    file = tmp_path / "cleanroom.toml"
    declared = '[services.cache]\nplugin = "redis"\nbackend = "process"\n'
    file.write_text(f"""{declared}
        password = "sesame"
        settings = {{ maxmemory = 7000000 }}
        users.reader = {{ password = "open", rules = "~* -@all +config|get" }}
        modules = []
    """)
    with CleanroomEnvironment.from_config(file) as env:
        handle = env["cache"]
        assert handle.require("password") == "sesame"
        host, port = handle.host, handle.port
        with redis.Redis(host, port, username="reader", password="open") as client:
            assert client.config_get("maxmemory") == {"maxmemory": "7000000"}
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.get("x")
    for line, said in [
        ("settings = 1", "settings is no table"),
        ("users.reader = { rules = '~*' }", "users.reader.password is empty"),
        (
            "users.reader = { password = 'x', rule = '~*' }",
            r"users.reader.rule: unknown key\s+hint: did you mean 'rules'",
        ),
        ("modules = ['here.so']", "path is 'here.so'"),
        ("modules = [[1]]", r"modules is \[1\]"),
        ("module = ['/here.so']", "module: unknown key"),
    ]:
        file.write_text(declared + line)
        with pytest.raises(ConfigurationError, match=said) as caught:
            CleanroomEnvironment.from_config(file).start("cache")
        assert f"{file} [services.cache]" in str(caught.value)


def test_settings(ground: Ground, start: Start) -> None:
    """Settings are taken as text, number and truth value, with several values, and empty."""
    plugin = (
        ground.plugin()
        .with_setting("maxmemory-policy", "allkeys-lru")
        .with_setting("maxmemory", 7_000_000)
        .with_setting("lazyfree-lazy-expire", True)
        .with_setting("active-defrag-threshold-lower", 12)
        .with_setting("client-output-buffer-limit", "pubsub 1mb 2mb 30")
        .with_setting("save", "900 1 300 10")
        .with_setting("notify-keyspace-events", "")
        .with_setting("databases", 20)
    )
    handle = start(plugin)
    with redis.Redis.from_url(handle.url, decode_responses=True) as client:

        def value(name: str) -> str:
            return str(client.config_get(name)[name])

        assert value("maxmemory-policy") == "allkeys-lru"
        assert value("maxmemory") == "7000000"
        assert value("lazyfree-lazy-expire") == "yes"
        assert "pubsub 1048576 2097152 30" in value("client-output-buffer-limit")
        assert value("save") == "900 1 300 10"
        assert value("notify-keyspace-events") == ""
        assert value("databases") == handle.require("databases") == "20"


def test_nothing_is_saved(ground: Ground, start: Start) -> None:
    """Data that is thrown away is not written to disk, and there are databases for many."""
    handle = start(ground.plugin())
    with redis.Redis.from_url(handle.url, decode_responses=True) as client:
        assert client.config_get("save")["save"] == ""
        assert client.config_get("appendonly")["appendonly"] == "no"
        assert client.config_get("databases")["databases"] == "1024"


@pytest.mark.parametrize(
    ("key", "value"), [("no-such-setting", "1"), ("maxmemory", "plenty"), ("save", '"open')]
)
def test_a_setting_the_server_refuses(ground: Ground, key: str, value: str) -> None:
    """A setting that is wrong ends the start at once, with what the server wrote about it."""
    with pytest.raises(ServiceError, match="ended") as caught:
        ground.plugin().with_setting(key, value).start()
    assert "FATAL CONFIG FILE ERROR" in str(caught.value.log_tail)
    assert key in str(caught.value.log_tail)


@pytest.mark.parametrize(
    "key", ["port", "bind", "dir", "requirepass", "user", "aclfile", "loadmodule", "Port", "a b"]
)
def test_a_setting_that_is_not_to_be_chosen(key: str) -> None:
    """Where the server listens, who may use it and what it loads are no settings."""
    with pytest.raises(ValidationError, match=f"key is {key!r}") as caught:
        RedisPlugin().with_setting(key, "1")
    assert caught.value.hint


@pytest.mark.parametrize("value", ["one\ntwo", "nul\0", None, ["a"]])
def test_a_setting_of_one_line(value: str) -> None:
    """A value that could become another setting is refused."""
    with pytest.raises(ValidationError, match="value of maxmemory"):
        RedisPlugin().with_setting("maxmemory", value)


@pytest.mark.parametrize("value", ["1", 0, "many", "16 17"])
def test_too_few_databases(value: str) -> None:
    """There must be room for at least one worker."""
    with pytest.raises(ValidationError, match="databases"):
        RedisPlugin().with_setting("databases", value)


def test_plugins_do_not_change() -> None:
    """Each `with_...` leaves the plugin it was called on as it was."""
    plugin = RedisPlugin()
    before = dict(vars(plugin))
    changed = (
        plugin.with_password("x").with_setting("hz", 5).with_user("u", "p").with_module("/m.so")
    )
    assert vars(plugin) == before
    assert vars(changed) != before


# ------------------------------------------------------------------------- users


def test_users(ground: Ground, start: Start) -> None:
    """ACL users have the password and the rights they were given, beside the default user."""
    plugin = (
        ground.plugin()
        .with_user("reader", "read # it", "~app:* -@all +get +ping +select")
        .with_user("writer", "write")
    )
    handle = start(plugin)
    with plugin.isolate(handle) as isolated:
        database = Database(isolated)
        with database.client(username="writer", password="write") as writer:
            writer.set("app:1", "x")
            writer.set("other", "y")
        with database.client(username="reader", password="read # it") as reader:
            assert reader.get("app:1") == b"x"
            for refused in (lambda: reader.get("other"), lambda: reader.set("app:1", "z")):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    refused()
        with (
            database.client(username="writer", password="wrong") as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()


def test_rules_the_server_refuses(process_ground: Ground) -> None:
    """Rules that are wrong end the start with what the server wrote about them."""
    with pytest.raises(ServiceError, match="ended") as caught:
        process_ground.plugin().with_user("u", "secret", "+no-such-command").start()
    assert "no-such-command" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("username", ["default", "", "a b", 'a"b', None])
def test_usernames_that_cannot_be(username: str) -> None:
    """The default user has another way to get its password; others have no spaces or quotes."""
    with pytest.raises(ValidationError, match="username"):
        RedisPlugin().with_user(username, "p")


@pytest.mark.parametrize("password", ["", "secret\n", None, "secret\0"])
def test_passwords_that_cannot_be(password: str) -> None:
    """A password has one line and is not empty; the error does not show it."""
    for give in (
        lambda: RedisPlugin().with_password(password),
        lambda: RedisPlugin().with_user("u", password),
    ):
        with pytest.raises(ValidationError, match="password") as caught:
            give()
        assert "secret" not in str(caught.value)


def test_rules_are_not_shown() -> None:
    """Rules may hold passwords, so an error about them does not show them."""
    with pytest.raises(ValidationError, match="rules") as caught:
        RedisPlugin().with_user("u", "p", ">secret\n~*")
    assert "secret" not in str(caught.value)


# ----------------------------------------------------------------------- modules

MODULE = r"""
    typedef struct Ctx Ctx;
    typedef struct Str Str;
    static int (*reply)(Ctx *, const char *);
    static char greeting[64] = "hello";

    static int greet(Ctx *ctx, Str **argv, int argc) { return reply(ctx, greeting); }

    int RedisModule_OnLoad(Ctx *ctx, Str **argv, int argc) {
        int (*get_api)(const char *, void *) = *(int (**)(const char *, void *))ctx;
        void (*attributes)(Ctx *, const char *, int, int);
        int (*create)(Ctx *, const char *, void *, const char *, int, int, int);
        const char *(*text)(const Str *, unsigned long *);
        get_api("RedisModule_SetModuleAttribs", &attributes);
        get_api("RedisModule_CreateCommand", &create);
        get_api("RedisModule_ReplyWithSimpleString", &reply);
        get_api("RedisModule_StringPtrLen", &text);
        if (argc > 0) {
            const char *from = text(argv[0], (unsigned long *)0);
            int i = 0;
            for (; from[i] && i < 63; i++) greeting[i] = from[i];
            greeting[i] = 0;
        }
        attributes(ctx, "greeter", 1, 1);
        return create(ctx, "greeter.greet", greet, "readonly fast", 0, 0, 0);
    }
"""


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module that adds the command `greeter.greet`, in a folder with a space in its name."""
    compiler = shutil.which("cc")
    if compiler is None:
        cannot_run("there is no C compiler")
    folder = tmp_path_factory.mktemp("a module")
    (folder / "greeter.c").write_text(MODULE)
    command = [compiler, "-w", "-shared", "-fPIC", "-o", "greeter.so", "greeter.c"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "greeter.so"


def test_modules(process_ground: Ground, start: Start, module: Path) -> None:
    """A module is loaded, and given its arguments as they are."""
    plugin = process_ground.plugin()
    for arguments, answer in (((), b"hello"), (('good "day"  to you',), b'good "day"  to you')):
        handle = start(plugin.with_module(str(module), *arguments))
        with redis.Redis.from_url(handle.url) as client:
            assert client.execute_command("greeter.greet") == answer


def test_a_module_that_is_not_there(process_ground: Ground, tmp_path: Path) -> None:
    """A module that does not exist is an error that names it, before anything is started."""
    path = tmp_path / "missing.so"
    with pytest.raises(ConfigurationError, match=r"missing\.so cannot be loaded") as caught:
        process_ground.plugin().with_module(str(path)).start()
    assert (caught.value.service, caught.value.backend) == ("cache", "process")


def test_a_module_that_is_none(process_ground: Ground, tmp_path: Path) -> None:
    """A file that is no module ends the start with what the server wrote about it."""
    path = tmp_path / "text.so"
    path.write_text("not a module")
    path.chmod(0o755)
    with pytest.raises(ServiceError, match="ended") as caught:
        process_ground.plugin().with_module(str(path)).start()
    assert str(path) in str(caught.value.log_tail)


def test_a_module_the_container_lacks(redis_image: str) -> None:
    """In a container the path is one of the container's, which the server looks for."""
    with pytest.raises(ServiceError, match="ended") as caught:
        RedisPlugin("cache", redis_image, backend="container").with_module("/none.so").start()
    assert "/none.so" in str(caught.value.log_tail)


@pytest.mark.parametrize("path", ["module.so", "", "/a\nb", None])
def test_module_paths_that_cannot_be(path: str) -> None:
    """The path of a module is a full one."""
    with pytest.raises(ValidationError, match="path"):
        RedisPlugin().with_module(path)


# ---------------------------------------------------------------------- trouble


def test_out_of_memory(ground: Ground, start: Start) -> None:
    """A server whose memory is full says so to who writes, is healthy, and is emptied as ever."""
    plugin = ground.plugin().with_setting("maxmemory", "4mb")
    handle = start(plugin)
    for _ in range(2):
        with plugin.isolate(handle) as isolated, redis.Redis.from_url(isolated.url) as client:
            assert client.dbsize() == 0
            with pytest.raises(redis.OutOfMemoryError, match="maxmemory"):
                fill(client)
            assert plugin.health_check(handle).value == "healthy"


def fill(client: redis.Redis) -> None:
    for number in range(100):
        client.set(f"key {number}", "x" * 100_000)


def test_a_server_that_asks_for_another_password(process_ground: Ground) -> None:
    """A server that was set up with another password is told from one that is late."""

    class Stubborn(RedisPlugin):
        def describe(self, host: str, port: int) -> dict[str, str]:
            return {
                **super().describe(host, port),
                "password": "x",
                "url": f"redis://:x@{host}:{port}/0",
            }

    plugin = Stubborn("cache", process_ground.image, backend="process", start_timeout=0.3)
    with pytest.raises(ServiceError, match="asks for another password or user") as caught:
        plugin.start()
    assert "with_password" in str(caught.value.hint)
    assert caught.value.log_tail


def test_what_failed_leaves_nothing(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that fails once the server runs leaves nothing of it."""
    seen: list[str] = []

    def fail(self: RedisPlugin, handle: object) -> dict[str, str]:
        seen.append(handle.id)  # type: ignore[attr-defined]
        raise RuntimeError("out of order")

    monkeypatch.setattr(RedisPlugin, "prepare", fail)
    with pytest.raises(ServiceError, match="RuntimeError: out of order"):
        ground.plugin().start()
    assert left_of_service(seen[0], engine=ground.backend == "container") == []
