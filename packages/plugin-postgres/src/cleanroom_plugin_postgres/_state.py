"""What a database has beside its content, who is at work in it, and what all databases share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from cleanroom_plugin_postgres._databases import literal, run_all
from cleanroom_plugin_postgres._wal import FIRST_VERSION

if TYPE_CHECKING:
    from cleanroom_plugin_postgres._client import Connection

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
_STATE = f"""
SELECT d.oid::bigint, (SELECT oid FROM pg_database WHERE datname = $2)::bigint, {_BELONGINGS}::text,
       pg_snapshot_xmax(pg_current_snapshot())::text,
       ARRAY(SELECT CASE WHEN state <> 'active'
                          AND clock_timestamp() - state_change > interval '50 ms'
                         THEN -pid ELSE pid END
             FROM pg_stat_activity
             WHERE datid = d.oid AND pid <> ALL ($3) AND pid IN (SELECT pid FROM pg_locks))
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
# Of a role, its version tells of a new password too. ALTER SYSTEM writes a file.
_SHARED_TO_SUPERUSERS = f"""
{_SHARED.format(role="oid || ' ' || xmin", roles="pg_authid")}
UNION ALL
SELECT 'settings made by ALTER SYSTEM', modification || ' ' || size
FROM pg_stat_file('postgresql.auto.conf', true)
"""
_PARAMETERS = """
UNION ALL
SELECT 'grants on setting ' || parname, paracl::text FROM pg_parameter_acl
"""
_SHARED_TO_OTHERS = _SHARED.format(role="oid || ' ' || r::text", roles="pg_roles AS r")

Shared = Mapping[str, str]
"""What all databases of a server share, by name, and how it is."""


@dataclass(frozen=True)
class State:
    """A database as of now.

    Attributes:
        oid: Its oid.
        template: The template's oid.
        belongings: By what a message calls it.
        next_transaction: Transactions before this one have ended here, unless `busy`.
        busy: Sessions in a transaction or with a lock: their process ids, negative if left alone.
    """

    oid: int
    template: int
    belongings: Mapping[str, object]
    next_transaction: int
    busy: Sequence[int]


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

    def ask(self, database: str, template: str) -> tuple[State | None, Shared]:
        """Return the state of a database, and what all share."""
        answers = run_all(self._connection, self.statements(database, template, []))
        return read_state(answers), read_shared(answers)

    def shared(self) -> Shared:
        """Return what all databases share."""
        return read_shared(run_all(self._connection, [*self._prepare(), _EXECUTE_SHARED]))

    def _prepare(self) -> list[str]:
        """Return statements that prepare the others, the first time."""
        if self._is_prepared:
            return []
        self._is_prepared = True
        is_superuser = self._connection.info.parameter_status("is_superuser") == "on"
        shared = _SHARED_TO_SUPERUSERS if is_superuser else _SHARED_TO_OTHERS
        statements = [f"PREPARE cleanroom_shared AS {shared}"]
        if self._connection.info.server_version >= FIRST_VERSION:
            statements[0] += _PARAMETERS
            statements.append(f"PREPARE cleanroom_state (text, text, int[]) AS {_STATE}")
        return statements


_EXECUTE_SHARED = "EXECUTE cleanroom_shared"


def read_state(answers: Sequence[Sequence[Sequence[object]]]) -> State | None:
    """Read the answer to `StateReader.statements`; `None` if there is no such database."""
    import json

    if not answers[-2]:
        return None
    oid, template, belongings, next_transaction, busy = answers[-2][0]
    return State(
        int(str(oid)),
        int(str(template or 0)),
        json.loads(str(belongings)),
        int(str(next_transaction)),
        cast("list[int]", busy),
    )


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
