"""What tests are given: a clean database, and the template it is made from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

from cleanroom import ServiceError, ServiceHandle
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

        Where the server is a process of this run, it goes by its unix socket, which is faster than
        the port that the URL names.

        Args:
            autocommit: Whether each statement is a transaction of its own.
        """
        connection = _client.connect(self.handle.metadata, autocommit=autocommit, by_socket=True)
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
        with _client.connect(self.handle.metadata, by_socket=True) as connection:
            run_script(connection, text, source=source, service=self.handle.service_name)

    def close(self) -> None:
        """Close the connections that `connect` opened and nobody closed."""
        while self._connections:
            self._connections.pop().close()

    def __repr__(self) -> str:
        """Show the name, and no password."""
        name = self.handle.metadata.get("database_name", "")
        return f"{type(self).__name__}({name!r} on {self.handle.service_name!r})"


class Template(Database):
    """What the databases of tests are clones of.

    It can be written to where `template` migrates it, and in a fixture that overrides
    `postgres_template`: the first write, or the first look at its address, makes a draft, which is
    a clone of what it was until then. Sealing makes the draft what it is from then on.

    Args:
        service: The service's handle; its metadata names what the template is so far.
        writable: Whether it can be written to wherever it is.
    """

    drafts: ClassVar[list[list[Template]]] = []
    """For each fixture that is overriding `postgres_template` just now: what it has written to."""

    def __init__(self, service: ServiceHandle, *, writable: bool = False) -> None:
        super().__init__(service)
        self._sealed = service
        self._writable = writable

    @classmethod
    def of_service(cls, service: ServiceHandle) -> Template:
        """Return the service's own database as something to migrate. It is never sealed."""
        template = cls(service)
        template.handle = with_database(service, service.require("database_name"))
        return template

    @property
    def url(self) -> str:
        """URL with credentials, for a migration tool."""
        self._open()
        return super().url

    @property
    def name(self) -> str:
        """Name of the database, for a migration tool."""
        self._open()
        return super().name

    def url_for(self, driver: str) -> str:
        """Return the URL as this driver reads it, see `Database.url_for`."""
        self._open()
        return super().url_for(driver)

    def connect(self, *, autocommit: bool = False) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a psycopg connection, see `Database.connect`."""
        self._open()
        return super().connect(autocommit=autocommit)

    def run_script(self, script: str | os.PathLike[str]) -> None:
        """Run SQL, see `Database.run_script`."""
        self._open()
        super().run_script(script)

    @property
    def is_draft(self) -> bool:
        """Whether it was written to since it was sealed."""
        return self.handle is not self._sealed

    def begin(self, name: str) -> None:
        """Begin a draft: a clone, under this name, of what the template is so far."""
        source = self._sealed.metadata.get("template", _databases.PRISTINE)
        with _databases.admin_connection(self._sealed.metadata) as admin:
            _databases.clone(admin, source, name)
        self.handle = with_database(self._sealed, name)

    def seal(self) -> ServiceHandle:
        """End the writing. Returns the service's handle, whose isolated databases are clones."""
        self.close()
        if self.is_draft:
            name = self.handle.require("database_name")
            with _databases.admin_connection(self._sealed.metadata) as admin:
                _databases.seal(admin, name)
            self._sealed = self.handle = as_template(self._sealed, name)
        return self._sealed

    def split_off(self) -> Template:
        """Return a sealed template that has the draft, and be again what this one was before."""
        self.close()
        if not self.is_draft:
            return self
        taken = Template(self._sealed)
        taken.handle, self.handle = self.handle, self._sealed
        taken.seal()
        return taken

    def discard(self) -> None:
        """Drop the draft, as something that failed leaves it."""
        self.close()
        if self.is_draft:
            name = self.handle.require("database_name")
            self.handle = self._sealed
            with _databases.admin_connection(self._sealed.metadata) as admin:
                _databases.drop(admin, name)

    def _open(self) -> None:
        """Make sure that there is a draft to write to.

        Raises:
            ServiceError: This is not the place to write to a template.
        """
        if self.is_draft:
            return
        if not self._writable and not self.drafts:
            raise ServiceError(
                "the template is sealed: databases of tests are clones of it",
                service=self._sealed.service_name,
                hint="write to it in a fixture named postgres_template, which asks for "
                "postgres_template and returns it",
            )
        database = self._sealed.require("database_name")
        self.begin(_databases.template_name(database, os.urandom(6).hex()))
        if self.drafts:
            self.drafts[-1].append(self)


def as_template(service: ServiceHandle, name: str) -> ServiceHandle:
    """Return the service's handle, whose isolated databases are clones of this template."""
    return ServiceHandle(service.id, service.service_name, {**service.metadata, "template": name})
