"""What becomes of a test that needs what this machine does not have."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

# Read once, before tests set and unset variables.
UNDER_CI = os.environ.get("CI", "").lower() in {"1", "true"}


def cannot_run(reason: str) -> NoReturn:
    """Skip the test; under CI, fail it."""
    if UNDER_CI:
        pytest.fail(f"{reason} (CI must run this test)")
    pytest.skip(reason)
