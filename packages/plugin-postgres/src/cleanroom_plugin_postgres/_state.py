"""What a database has beside its content, who is at work in it, and what all databases share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from cleanroom_plugin_postgres._databases import literal, run_all

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection

FIRST_VERSION = 150000
"""The first version of the server whose log can be asked what was written."""

# By what a message calls it, what there is of it. The template is among it, because a database is
# no clone any more of one that was made again.
_BELONGINGS = """
jsonb_build_object(
    'owner, grants or properties', to_jsonb(d) - '{datfrozenxid,datminmxid,dathasloginevt}'::text[],
    'settings', (SELECT jsonb_object_agg(setrole, setconfig) FROM pg_db_role_setting
                 WHERE setdatabase = d.oid),
    'comment', (SELECT description FROM pg_shdescription
                WHERE objoid = d.oid AND classoid = 'pg_database'::regclass),
    'security labels', (SELECT jsonb_object_agg(provider, label) FROM pg_shseclabel
                        WHERE objoid = d.oid AND classoid = 'pg_database'::regclass),
    'subscriptions', (SELECT jsonb_agg(subname) FROM pg_subscription WHERE subdbid = d.oid),
    'replication slots', (SELECT jsonb_agg(slot_name) FROM pg_replication_slots
                          WHERE database = d.datname),
    'prepared transactions', (SELECT jsonb_agg(gid) FROM pg_prepared_xacts
                              WHERE database = d.datname),
    'template', (SELECT oid FROM pg_database WHERE datname = $2)
)
"""
# Whoever is in a transaction holds a lock on it; whoever holds another one outside of
# transactions, holds an advisory lock. Left alone for long (-), it can be ended at once.
_WORK = """
pg_snapshot_xmax(pg_current_snapshot())::text,
ARRAY(SELECT CASE WHEN state <> 'active' AND clock_timestamp() - state_change > interval '50 ms'
                  THEN -pid ELSE pid END
      FROM pg_stat_get_activity(NULL)
      WHERE datid = {database} AND pid <> ALL ({ours}) AND pid IN (SELECT pid FROM pg_locks))
"""
_STATE = f"""
SELECT {_WORK.format(database="d.oid", ours="$3")},
       d.oid::bigint, (SELECT oid FROM pg_database WHERE datname = $2)::bigint, {_BELONGINGS}::text
FROM pg_database AS d WHERE d.datname = $1
"""
_SHARED = """
SELECT 'role ' || quote_ident(rolname), {role} FROM {roles}
UNION ALL
SELECT 'membership of ' || quote_ident(pg_get_userbyid(member)) || ' in '
       || quote_ident(pg_get_userbyid(roleid)), string_agg(to_jsonb(m)::text, ',' ORDER BY grantor)
FROM pg_auth_members AS m GROUP BY roleid, member
UNION ALL
SELECT 'settings of ' || CASE setrole WHEN 0 THEN 'all roles'
                         ELSE 'role ' || quote_ident(pg_get_userbyid(setrole)) END, setconfig::text
FROM pg_db_role_setting WHERE setdatabase = 0
UNION ALL
SELECT 'tablespace ' || quote_ident(spcname), to_jsonb(t)::text FROM pg_tablespace AS t
"""
_SETTINGS_FILE = "settings made by ALTER SYSTEM"
_READ_SETTINGS_FILE = """
SELECT coalesce(modification || ' ' || size, '') FROM pg_stat_file('postgresql.auto.conf', true)
"""
# Of a role, its version tells of a new password too. ALTER SYSTEM writes a file, and no log.
_SHARED_TO_SUPERUSERS = f"""
{_SHARED.format(role="oid || ' ' || xmin", roles="pg_authid")}
UNION ALL
SELECT '{_SETTINGS_FILE}', ({_READ_SETTINGS_FILE})
"""
_POSITION = f"SELECT pg_current_wal_insert_lsn()::text AS log, ({_READ_SETTINGS_FILE}) AS settings"
_PARAMETERS = """
UNION ALL
SELECT 'grants on setting ' || parname, paracl::text FROM pg_parameter_acl
"""
_SHARED_TO_OTHERS = _SHARED.format(role="oid || ' ' || r::text", roles="pg_roles AS r")

Shared = Mapping[str, str]
"""What all databases of a server share, by name, and how it is."""


class Work(NamedTuple):
    """Who is at work in a database.

    Attributes:
        next_transaction: Transactions before this one have ended here, unless `busy`.
        busy: Sessions in a transaction or with a lock: their process ids, negative if left alone.
    """

    next_transaction: int
    busy: Sequence[int]


class State(NamedTuple):
    """A database as of now.

    Attributes:
        oid: Its oid.
        template: The template's oid.
        belongings: By what a message calls it.
        work: Who is at work in it.
    """

    oid: int
    template: int
    belongings: Mapping[str, object]
    work: Work


class Position(NamedTuple):
    """How far the server's log has got, and the file that `ALTER SYSTEM` writes.

    While it is the same, nothing is written to any database, or to what they share.
    """

    log: str
    settings: str

    @classmethod
    def of(cls, log: str, shared: Shared) -> Position:
        """Return that of a state of what all databases share, which was read before."""
        return cls(log, shared.get(_SETTINGS_FILE, ""))


class StateReader:
    """Asks for the state of databases over a superuser's connection to the maintenance database."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._is_prepared = False

    def statements(self, database: str, template: str, ours: Sequence[int]) -> list[str]:
        """Return statements whose rows `state` and `shared` read.

        Args:
            database: The database's name.
            template: The template's name.
            ours: Process ids of sessions of our own.
        """
        pids = ",".join(map(str, ours))
        arguments = f"{literal(database)}, {literal(template)}, '{{{pids}}}'"
        return [*self._prepare(), f"EXECUTE cleanroom_state({arguments})", _EXECUTE_SHARED]

    def work_statements(self, oid: int, ours: Sequence[int]) -> list[str]:
        """Return statements whose rows `read_work` reads. Arguments are as for `statements`."""
        pids = ",".join(map(str, ours))
        return [*self._prepare(), f"EXECUTE cleanroom_work({oid}, '{{{pids}}}')"]

    def shared_since(self, position: Position) -> Shared | None:
        """Return what all databases share; `None` if the log has got no further than that."""
        if not self._is_superuser:  # who is not told all of it
            return self.shared()
        arguments = f"{literal(position.log)}, {literal(position.settings)}"
        asked = [*self._prepare(), f"EXECUTE cleanroom_shared_since ({arguments})"]
        return read_shared(run_all(self._connection, asked)) or None

    def idle_position(self, oid: int, ours: Sequence[int]) -> Position | None:
        """Return how far the log has got when nobody was at work in a database; `None` if not so.

        Takes a superuser.

        Args:
            oid: The database's oid.
            ours: Process ids of sessions of our own.
        """
        # Who ends work after the first question has written before the second one.
        asked = [*self.work_statements(oid, ours), _EXECUTE_POSITION]
        answers = run_all(self._connection, asked)
        return None if read_work(answers[:-1]).busy else _read_position(answers)

    def ask(self, database: str, template: str) -> tuple[State | None, Shared]:
        """Return the state of a database, and what all share."""
        answers = run_all(self._connection, self.statements(database, template, []))
        return read_state(answers), read_shared(answers)

    def shared(self) -> Shared:
        """Return what all databases share."""
        return read_shared(run_all(self._connection, [*self._prepare(), _EXECUTE_SHARED]))

    @property
    def _is_superuser(self) -> bool:
        return self._connection.info.parameter_status("is_superuser") == "on"

    def _prepare(self) -> list[str]:
        """Return statements that prepare the others, the first time."""
        if self._is_prepared:
            return []
        self._is_prepared = True
        shared = _SHARED_TO_SUPERUSERS if self._is_superuser else _SHARED_TO_OTHERS
        statements = [f"PREPARE cleanroom_shared AS {shared}"]
        if self._connection.info.server_version >= FIRST_VERSION:
            statements[0] += _PARAMETERS
            work = _WORK.format(database="$1", ours="$2")
            statements.append(f"PREPARE cleanroom_state (text, text, int[]) AS {_STATE}")
            statements.append(f"PREPARE cleanroom_work (oid, int[]) AS SELECT {work}")
            if self._is_superuser:
                statements.append(f"PREPARE cleanroom_position AS {_POSITION}")
                statements.append(
                    "PREPARE cleanroom_shared_since (text, text) AS "
                    f"SELECT * FROM ({statements[0].partition(' AS ')[2]}) AS shared "
                    f"WHERE (SELECT ROW($1, $2) <> ROW(log, settings) FROM ({_POSITION}) AS now)"
                )
        return statements


_EXECUTE_SHARED = "EXECUTE cleanroom_shared"
_EXECUTE_POSITION = "EXECUTE cleanroom_position"


def read_state(answers: Sequence[Sequence[Sequence[object]]]) -> State | None:
    """Read the answer to `StateReader.statements`; `None` if there is no such database."""
    import json

    if not answers[-2]:
        return None
    *work, oid, template, belongings = answers[-2][0]
    return State(
        int(str(oid)),
        int(str(template or 0)),
        json.loads(str(belongings)),
        _as_work(work),
    )


def read_work(answers: Sequence[Sequence[Sequence[object]]]) -> Work:
    """Read the last answer to `StateReader.work_statements`."""
    return _as_work(answers[-1][0])


def _as_work(row: Sequence[object]) -> Work:
    next_transaction, busy = row
    return Work(int(str(next_transaction)), cast("list[int]", busy))


def _read_position(answers: Sequence[Sequence[Sequence[object]]]) -> Position:
    log, settings = answers[-1][0]
    return Position(str(log), str(settings))


def read_shared(answers: Sequence[Sequence[Sequence[object]]]) -> Shared:
    """Read the last answer to `StateReader.statements`."""
    return {str(name): str(value) for name, value in answers[-1]}


def differences(before: Shared, after: Shared) -> list[str]:
    """Name what differs, and how."""
    named: list[str] = []
    for name in sorted({*before, *after}):
        if name not in before:
            named.append(f"{name} (added)")
        elif name not in after:
            named.append(f"{name} (removed)")
        elif before[name] != after[name]:
            named.append(f"{name} (changed)")
    return named
