"""What a server is asked to start with, where another run can tell that it would be the same."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cleanroom import CleanroomError
from cleanroom_plugin_postgres._cluster import Cluster, extensions_of
from cleanroom_plugin_postgres._inputs import Migration
from cleanroom_runtime import LocalServer

_FORMAT = "1"
_VARIABLES = ("PGCLIENTENCODING", "PGDATESTYLE", "PGGEQO", "PGOPTIONS", "PGTZ")
"""Variables by which libpq has the server do things in another way ("Environment Variables")."""


@dataclass(frozen=True)
class Content:
    """What a server is to start with.

    Attributes:
        scripts: Init scripts: texts, and paths of files.
        migration: What migrates its own database after them.
        templates: What makes further templates.
    """

    scripts: tuple[str | Path, ...]
    migration: Migration | None
    templates: tuple[Migration, ...]

    @classmethod
    def that_lasts(
        cls,
        scripts: tuple[str | Path, ...],
        migration: Migration | None,
        wishes: Iterable[object],
    ) -> Content | None:
        """Return what another run can use as well, if there is any.

        Args:
            scripts: Init scripts.
            migration: Of the service's own database. Where it does not last, nothing does.
            wishes: The migrations of templates, as fixtures have told of them.
        """
        if migration is not None and _lasting([migration]) != [migration]:
            return None
        found = cls(scripts, migration, tuple(_lasting(wishes)))
        return found if found.fills_service or found.templates else None

    @property
    def fills_service(self) -> bool:
        """Whether the service's own database has any of it."""
        return bool(self.scripts or self.migration)

    @property
    def migrations(self) -> list[Migration]:
        """All of them."""
        return [*([self.migration] if self.migration else []), *self.templates]

    def digest(self, cluster: Cluster, server: LocalServer) -> str:
        """Return a digest of what the content is known to depend on, beside an empty directory.

        Raises:
            OSError: A script cannot be read.
        """
        facts = [
            _FORMAT,
            sorted(cluster.settings.items()),
            sorted(cluster.env.items()),
            [os.environ.get(name) for name in _VARIABLES],
            extensions_of(server),
            [_digest_of_script(script) for script in self.scripts],
            self.migration.digest if self.migration else "",
            [each.digest for each in self.templates],
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _lasting(wishes: Iterable[object]) -> list[Migration]:
    """Return those that another run can use as well, each once, in the same order in every run."""
    found: dict[str, Migration] = {}
    for each in wishes:
        if isinstance(each, Migration):
            each.look_again()
            with contextlib.suppress(CleanroomError):  # which the tests that need it are told
                # In this order: what is edited from now on is noticed once it has migrated.
                digest = each.digest
                if each.is_lasting and each.is_as_digested:
                    found[digest] = each
    return [each for _, each in sorted(found.items())]


def _digest_of_script(script: str | Path) -> str:
    content = script.encode() if isinstance(script, str) else script.read_bytes()
    return hashlib.sha256(content).hexdigest()
