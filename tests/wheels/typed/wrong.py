"""Mistakes that a checker finds where it sees the types of the packages."""

from cleanroom import CleanroomEnvironment, ServiceHandle
from cleanroom_plugin_http import HttpPlugin
from cleanroom_plugin_postgres import Database, PostgresPlugin
from cleanroom_plugin_redis import RedisPlugin
from cleanroom_runtime import ContainerPlugin

PostgresPlugin("db", backend="proces")  # wrong: no such backend
RedisPlugin("cache").with_password(7)  # wrong: a number
HttpPlugin("api", port="80")  # wrong: a text
ContainerPlugin("any", "nginx:1.29", ports=["http"])  # wrong: no numbers


class NoPlugin:
    name = "half"

    def start(self) -> ServiceHandle:
        return ServiceHandle("1", self.name)


def misuse(env: CleanroomEnvironment, handle: ServiceHandle, database: Database) -> None:
    env.register(NoPlugin())  # wrong: no stop and no health_check
    handle.service_name = "other"  # wrong: frozen
    length: int = database.url  # wrong: a text
    print(length, env.servics)  # wrong: misspelt
