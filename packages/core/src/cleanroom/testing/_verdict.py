"""How a check says that a plugin does not conform, and what is to be mended."""

from __future__ import annotations

import inspect
from typing import NoReturn

import pytest

_REASONS = ("xfail", "skip", "skipif")


def reject(found: str, mend: str) -> NoReturn:
    """Fail the check.

    Args:
        found: What the plugin did, as a sentence.
        mend: What its author is to do.
    """
    pytest.fail(f"{found}.\nTo mend: {mend}.", pytrace=False)


def require(holds: object, found: str, mend: str) -> None:
    """Fail the check unless it holds. See `reject`."""
    if not holds:
        reject(found, mend)


def refuse_silent_overrides(kit: type, suite: type) -> None:
    """Fail where a suite overrides a check of the kit and does not say why.

    Args:
        kit: The class with the checks.
        suite: A class derived from it.
    """
    checks = [name for name in vars(kit) if name.startswith("test_")]
    for name in checks:
        own = inspect.getattr_static(suite, name, None)
        if own is not vars(kit)[name] and not _states_a_reason(own):
            reject(
                f"{suite.__name__}.{name} overrides a check of the conformance kit and does not "
                "say why",
                "give your own test another name; or, where the check cannot hold for this "
                'plugin, mark the override with @pytest.mark.xfail(reason="...")',
            )


def _states_a_reason(check: object) -> bool:
    marks: list[pytest.Mark] = getattr(check, "pytestmark", [])
    for mark in marks:
        positional = mark.args[0] if mark.name == "skip" and mark.args else ""
        reason = mark.kwargs.get("reason", positional)
        if mark.name in _REASONS and isinstance(reason, str) and reason.strip():
            return True
    return False
