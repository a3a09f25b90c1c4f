"""What users write, with types that strict checkers accept."""

from __future__ import annotations

from typing import Any

import pytest

from cleanroom import CleanroomEnvironment, HealthStatus, ServiceHandle, ServicePlugin
from cleanroom.hooks import hookimpl
from cleanroom.testing import PluginConformance
from cleanroom_plugin_http import HttpPlugin, HttpService
from cleanroom_plugin_postgres import Database, PostgresPlugin, template
from cleanroom_plugin_redis import Database as RedisDatabase
from cleanroom_plugin_redis import RedisPlugin
from cleanroom_runtime import ContainerPlugin


def migrate(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE orders (id int)")


postgres_template = template(migrate=migrate, inputs=["migrations/*.sql"])


class ByHand:
    """A plugin without a base class."""

    @property
    def name(self) -> str:
        return "by-hand"

    def start(self) -> ServiceHandle:
        return ServiceHandle("1", self.name, {"url": "hand://here"})

    def stop(self, handle: ServiceHandle) -> None:
        pass

    def health_check(self, handle: ServiceHandle) -> HealthStatus:
        return HealthStatus.UNKNOWN


@hookimpl
def cleanroom_service_started(handle: ServiceHandle) -> None:
    print(handle.host, handle.port + 1)


def urls() -> list[str]:
    plugins: list[ServicePlugin] = [
        PostgresPlugin("db", backend="process").with_credentials("user", "secret"),
        RedisPlugin("cache").with_password("secret"),
        HttpPlugin("api", command=["serve", "{port}"]).with_health_check("/", 200),
        ContainerPlugin("any", "nginx:1.29", ports=[80]),
        ByHand(),
    ]
    env = CleanroomEnvironment()
    for plugin in plugins:
        env.register(plugin)
    with env:
        return [env[plugin.name].url for plugin in plugins]


def test_order(postgres_db: Database, redis_db: RedisDatabase, http_service: HttpService) -> None:
    with postgres_db.connect() as connection:
        row: tuple[Any, ...] | None = connection.execute("SELECT 1").fetchone()
    assert row == (1,)
    assert redis_db.url.startswith("redis://")
    assert http_service.session.get("/").ok


class TestByHand(PluginConformance):
    @pytest.fixture
    def plugin(self) -> ServicePlugin:
        return ByHand()
