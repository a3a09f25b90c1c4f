"""What can be measured, by the names that `--only` takes, in the order in which it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from benchmarks._session import Session
from benchmarks.authors import measure_discovery, measure_new
from benchmarks.breakdown import measure_breakdown
from benchmarks.cold import measure_cold, measure_start_stop
from benchmarks.idle import measure_idle, measure_imports, measure_memory
from benchmarks.migrations import measure_migrations
from benchmarks.next_test import measure_next
from benchmarks.redis_tests import measure_redis
from benchmarks.together import measure_shop, measure_together
from benchmarks.workers import measure_workers

MEASUREMENTS: Mapping[str, Callable[[Session], None]] = MappingProxyType(
    {
        "cold": measure_cold,
        "breakdown": measure_breakdown,
        "start-stop": measure_start_stop,
        "next": measure_next,
        "migrations": measure_migrations,
        "xdist": measure_workers,
        "redis": measure_redis,
        "together": measure_together,
        "shop": measure_shop,
        "idle": measure_idle,
        "imports": measure_imports,
        "memory": measure_memory,
        "discovery": measure_discovery,
        "new": measure_new,
    }
)
