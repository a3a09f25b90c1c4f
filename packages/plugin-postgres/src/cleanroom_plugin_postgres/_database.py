"""What tests are given: a clean database, and the template it is made from."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cleanroom import ServiceHandle
from cleanroom_plugin_postgres import _client, _databases
from cleanroom_plugin_postgres._isolation import with_database

if TYPE_CHECKING:
    import psycopg


class Database:
    """A database of a test's own.

    Attributes:
        handle: The service's handle, leading to this database.
    """

    def __init__(self, handle: ServiceHandle) -> None:
        self.handle = handle
        self._connections: list[psycopg.Connection[Any]] = []

    @property
    def url(self) -> str:
        """URL with credentials. It stays the same for all tests of one worker."""
        return self.handle.url

    @property
    def name(self) -> str:
        """Name of the database."""
        return self.handle.require("database_name")

    def url_for(self, driver: str) -> str:
        """Return the URL as this driver reads it.

        Args:
            driver: `psycopg`, `psycopg2`, `asyncpg` or `pg8000` for SQLAlchemy's form of URL
                (`postgresql+asyncpg://...`), `libpq` for the plain one, `jdbc` for Java's.

        Raises:
            ValidationError: The driver is not known.
        """
        return _client.url_for(self.handle.metadata, driver)

    def connect(self, *, autocommit: bool = False) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a psycopg connection. One that is left open is closed after the test.

        Args:
            autocommit: Whether each statement is a transaction of its own.
        """
        connection = _client.connect(self.handle.metadata, autocommit=autocommit)
        self._connections.append(connection)
        return connection

    def run_script(self, script: str | os.PathLike[str]) -> None:
        """Run SQL: its text, or the path of a `.sql` or `.sql.gz` file.

        Raises:
            ServiceError: The server refused a statement; names script and line.
            ValidationError: The file cannot be read.
        """
        from cleanroom_plugin_postgres._scripts import read_script, run_script

        source, text = read_script(script)
        with _client.connect(self.handle.metadata) as connection:
            run_script(connection, text, source=source, service=self.handle.service_name)

    def close(self) -> None:
        """Close the connections that `connect` opened and nobody closed."""
        while self._connections:
            self._connections.pop().close()

    def __repr__(self) -> str:
        """Show the name, and no password."""
        return f"{type(self).__name__}({self.name!r} on {self.handle.service_name!r})"


class Template(Database):
    """What the databases of tests are clones of.

    It can be written to until the first test has asked for a database; it comes into being when
    it is first written to, as a clone of what the service starts with.
    """

    def __init__(self, service: ServiceHandle, name: str) -> None:
        self._source = service.metadata.get("template", _databases.PRISTINE)
        self._made = False
        self._sealed = False
        self._service = service
        super().__init__(with_database(service, name))

    @classmethod
    def migrated(cls, service: ServiceHandle, name: str) -> Self:
        """Return a template that this or another worker has made and sealed."""
        template = cls(service, name)
        template._made = template._sealed = True
        return template

    @property
    def url(self) -> str:
        """URL with credentials, for a migration tool."""
        self._make()
        return super().url

    def url_for(self, driver: str) -> str:
        """Return the URL as this driver reads it, see `Database.url_for`."""
        self._make()
        return super().url_for(driver)

    def connect(self, *, autocommit: bool = False) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a psycopg connection, see `Database.connect`."""
        self._make()
        return super().connect(autocommit=autocommit)

    def run_script(self, script: str | os.PathLike[str]) -> None:
        """Run SQL, see `Database.run_script`."""
        self._make()
        super().run_script(script)

    def seal(self) -> ServiceHandle:
        """End the writing. Returns the service's handle, whose isolated databases are clones."""
        self.close()
        if not self._made:
            return self._service
        if not self._sealed:
            self._sealed = True
            with _databases.admin_connection(self._service.metadata) as admin:
                _databases.seal(admin, self.name)
        metadata = {**self._service.metadata, "template": self.name}
        return ServiceHandle(self._service.id, self._service.service_name, metadata)

    def discard(self) -> None:
        """Drop it, as a migration that failed leaves it."""
        self.close()
        if self._made:
            with _databases.admin_connection(self._service.metadata) as admin:
                _databases.drop(admin, self.name)

    def _make(self) -> None:
        if not self._made:
            with _databases.admin_connection(self._service.metadata) as admin:
                _databases.clone(admin, self._source, self.name)
            self._made = True


Migrate = Callable[[Template], object] | str | os.PathLike[str] | list[str]
"""How a template gets its content: a callable, or globs of SQL files."""


def migrate_with(migrate: Migrate, folder: Path) -> Callable[[Template], object]:
    """Return what migrates a template: the callable, or one that runs the SQL files in order.

    Args:
        migrate: The callable, or globs relative to `folder`.
        folder: Where the globs begin.
    """
    if callable(migrate):
        return migrate

    def run_files(template: Template) -> None:
        for file in sql_files(migrate, folder):
            template.run_script(file)

    return run_files


def sql_files(patterns: str | os.PathLike[str] | list[str], folder: Path) -> list[Path]:
    """Return the files that globs match, each glob's sorted by path.

    Raises:
        ValidationError: A glob matches nothing.
    """
    from cleanroom import ValidationError

    listed = patterns if isinstance(patterns, list) else [os.fspath(patterns)]
    files: list[Path] = []
    for pattern in listed:
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        if not found:
            raise ValidationError(f"{pattern!r} matches no file in {folder}")
        files += found
    return files
