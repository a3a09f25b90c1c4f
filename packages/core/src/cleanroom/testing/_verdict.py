"""How a check says that a plugin does not conform, and what is to be mended."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import NoReturn

import pytest

from cleanroom._errors import nearest

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


def leave_out(kit: type, suite: type, left_out: Mapping[str, str]) -> None:
    """Take checks out of a suite; fail where one is no check, or the reason is missing.

    Args:
        kit: The class with the checks.
        suite: A class derived from it.
        left_out: Names of checks, and why they do not apply.
    """
    for name, reason in left_out.items():
        require(
            name in _checks(kit),
            f"{suite.__name__}.left_out names {name!r}, which is no check of the conformance kit",
            nearest(name, _checks(kit)),
        )
        require(
            reason.strip(),
            f"{suite.__name__}.left_out does not say why {name} does not apply",
            f'write left_out = {{"{name}": "..."}}',
        )
        setattr(suite, name, None)


def refuse_silent_overrides(kit: type, suite: type, left_out: Collection[str]) -> None:
    """Fail where a suite overrides a check of the kit and does not say why.

    Args:
        kit: The class with the checks.
        suite: A class derived from it.
        left_out: Names of checks that were taken out of it.
    """
    for name in _checks(kit):
        own = inspect.getattr_static(suite, name, None)
        if name in left_out or own is vars(kit)[name]:
            continue
        if not _states_a_reason(own):
            reject(
                f"{suite.__name__}.{name} overrides a check of the conformance kit and does not "
                "say why",
                "give your own test another name; or, where the check cannot hold for this "
                'plugin, mark the override with @pytest.mark.xfail(reason="...")',
            )


def _checks(kit: type) -> list[str]:
    return [name for name in vars(kit) if name.startswith("test_")]


def _states_a_reason(check: object) -> bool:
    marks: list[pytest.Mark] = getattr(check, "pytestmark", [])
    for mark in marks:
        positional = mark.args[0] if mark.name == "skip" and mark.args else ""
        reason = mark.kwargs.get("reason", positional)
        if mark.name in _REASONS and isinstance(reason, str) and reason.strip():
            return True
    return False
