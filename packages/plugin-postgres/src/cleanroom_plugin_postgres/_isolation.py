"""A clean database for each test, under a name that stays the same."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cleanroom import ServiceHandle
from cleanroom_plugin_postgres import _databases
from cleanroom_plugin_postgres._client import make_url
from cleanroom_plugin_postgres._pool import Pool
from cleanroom_runtime import Replaced


class NotIsolatedWarning(UserWarning):
    """A test left something changed that all databases of a server share, such as a role."""


@contextmanager
def lease(handle: ServiceHandle) -> Iterator[ServiceHandle]:
    """Lease a clean database. The handle's metadata names what it is cloned from (`template`).

    Afterwards a `NotIsolatedWarning` names what was changed that no database has of its own.
    """
    pool = _pool(handle)
    slot = pool.take(handle.metadata.get("template", _databases.PRISTINE))
    try:
        yield with_database(handle, slot.name)
    finally:
        changes = pool.give_back(slot)
        if changes:
            warnings.warn(
                f"{', '.join(changes)} on the server of {handle.service_name!r}, by this test or "
                "at the same time: databases share that, so other tests see it",
                NotIsolatedWarning,
                stacklevel=3,
            )


def keep(handle: ServiceHandle, database: str) -> ServiceHandle:
    """Set a leased database aside, as it is. Returns the handle it is found with from now on."""
    return with_database(handle, _pool(handle).set_aside(database))


def replaced(handle: ServiceHandle) -> Mapping[str, Replaced]:
    """Return why databases were replaced that this process had leased, and what that cost.

    A database is replaced by a fresh clone when what was written to it cannot be undone in place.
    """
    pool = _pools.get((handle.id, os.getpid()))
    return dict(pool.replaced) if pool is not None else {}


def close(handle: ServiceHandle) -> None:
    """Close the connections this process holds for isolating in a service."""
    pool = _pools.pop((handle.id, os.getpid()), None)
    if pool is not None:
        pool.close()


def with_database(handle: ServiceHandle, database: str) -> ServiceHandle:
    """Return the handle of another database of the same server."""
    metadata = handle.metadata
    url = make_url(
        handle.host, handle.port, metadata["username"], metadata["password"], database,
        parameters=metadata.get("parameters", ""),
    )  # fmt: skip
    return ServiceHandle(
        handle.id, handle.service_name, {**metadata, "database_name": database, "url": url}
    )


_pools: dict[tuple[str, int], Pool] = {}


def _pool(handle: ServiceHandle) -> Pool:
    key = (handle.id, os.getpid())
    # Without a lock, which a fork would have to let go of: of threads that get here at the same
    # time, one adds its pool, and all are given that.
    return _pools.get(key) or _pools.setdefault(key, Pool(handle))
