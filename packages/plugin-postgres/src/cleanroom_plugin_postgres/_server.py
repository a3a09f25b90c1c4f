"""What one process holds to isolate in one server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode

from cleanroom_plugin_postgres._client import connect
from cleanroom_plugin_postgres._databases import admin_connection, settle
from cleanroom_plugin_postgres._state import StateReader

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection
    from cleanroom_plugin_postgres._undo import Undo
    from cleanroom_plugin_postgres._wal import WriteLog


class Server:
    """Our connection to the maintenance database, and what was learned over it.

    Args:
        metadata: Of a handle of the server.

    Attributes:
        admin: The connection.
        reader: Reads the state of databases.
    """

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self.admin = settle(admin_connection(metadata))
        self.reader = StateReader(self.admin)
        self._metadata = metadata
        self._log: WriteLog | None = None
        self._is_log_open = False
        self._undos: dict[str, Undo] = {}
        self._origins: dict[str, str] = {}

    def undo(self, template: str, slot: str) -> Undo | None:
        """Return what undoes in clones of a template; `None` where the log cannot be asked.

        Args:
            template: The template's name.
            slot: The name of a database of this process's own, after which others are named.
        """
        # Not at the top: where one test is run alone, there is nothing to undo.
        from cleanroom_plugin_postgres._origin import Origin
        from cleanroom_plugin_postgres._undo import Undo
        from cleanroom_plugin_postgres._wal import open_log

        if not self._is_log_open:
            self._log = open_log(self.admin)
            self._is_log_open = True
        if self._log is None:
            return None
        if template not in self._undos:
            name = self._origins.setdefault(template, f"{slot}_origin_{len(self._origins) + 1}")
            origin = Origin(self.admin, template, name, self._connect)
            self._undos[template] = Undo(self.admin, self.reader, self._log, origin)
        return self._undos[template]

    def forget(self, template: str) -> None:
        """Forget what was learned of a template."""
        self._undos.pop(template, None)

    def connect_to_undo(self, database: str) -> Connection:
        """Open a connection to undo with in a database."""
        connection = self._connect(database)
        # Triggers, rules and foreign keys have done their part when the rows were written.
        connection.execute("SET session_replication_role = replica; SET lock_timeout = '2s'")
        return connection

    def _connect(self, database: str) -> Connection:
        metadata = self._metadata
        if self.admin.info.server_version >= 170000:
            # A trigger on login would write.
            parameters = dict(parse_qsl(metadata.get("parameters", "")))
            options = f"{parameters.get('options', '')} -c event_triggers=off"
            added = urlencode({**parameters, "options": options}, quote_via=quote)
            metadata = {**metadata, "parameters": added}
        return settle(connect(metadata, database, by_socket=True))
