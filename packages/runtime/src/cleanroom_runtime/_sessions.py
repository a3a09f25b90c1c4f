"""The pytest sessions that are under way in this process.

They join their runs as soon as `_run` is imported, which in most pytest runs it never is: no test
wants a service.
"""

from __future__ import annotations

from collections.abc import Callable

under_way: list[Callable[[], object]] = []
"""What has a session join its run, the outermost session first."""
