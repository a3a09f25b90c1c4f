"""The plugin keeps what the protocol promises, on both backends."""

from __future__ import annotations

from collections.abc import Collection

import psycopg
import pytest

from cleanroom import ServiceHandle
from cleanroom.testing import PluginConformance
from cleanroom_plugin_postgres import PostgresPlugin
from tests.grounds import Ground, find_ground


class TestPostgresPlugin(PluginConformance):
    @pytest.fixture(params=["embedded", pytest.param("container", marks=pytest.mark.slow)])
    def ground(self, request: pytest.FixtureRequest) -> Ground:
        return find_ground(request.param, request)

    @pytest.fixture
    def plugin(self, ground: Ground) -> PostgresPlugin:
        return ground.plugin().with_credentials("tester", "correct-horse: 'battery' & \"staple\"")

    def write(self, handle: ServiceHandle, text: str) -> None:
        with psycopg.connect(handle.url) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS texts (text text)")
            connection.execute("INSERT INTO texts VALUES (%s)", [text])

    def read(self, handle: ServiceHandle) -> Collection[str]:
        with psycopg.connect(handle.url) as connection:
            if connection.execute("SELECT to_regclass('texts')").fetchone() == (None,):
                return []
            return [text for (text,) in connection.execute("SELECT text FROM texts")]
