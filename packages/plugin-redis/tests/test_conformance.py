"""The plugin keeps what the protocol promises, on both backends."""

from __future__ import annotations

from collections.abc import Collection

import pytest
import redis

from cleanroom import ServiceHandle
from cleanroom.testing import PluginConformance
from cleanroom_plugin_redis import RedisPlugin
from tests.redis_grounds import Ground, find_ground


class TestRedisPlugin(PluginConformance):
    @pytest.fixture(params=["embedded", pytest.param("container", marks=pytest.mark.slow)])
    def ground(self, request: pytest.FixtureRequest) -> Ground:
        return find_ground(request.param, request)

    @pytest.fixture
    def plugin(self, ground: Ground) -> RedisPlugin:
        return ground.plugin().with_password("correct-horse: 'battery' & \"staple\"")

    def write(self, handle: ServiceHandle, text: str) -> None:
        with redis.Redis.from_url(handle.url) as client:
            client.set(text, 1)

    def read(self, handle: ServiceHandle) -> Collection[str]:
        with redis.Redis.from_url(handle.url, decode_responses=True) as client:
            return [str(key) for key in client.scan_iter()]
