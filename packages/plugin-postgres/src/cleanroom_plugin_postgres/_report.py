"""What came of making a server's content beforehand, as all processes of its run know it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from cleanroom import CleanroomError, ServiceHandle

_NOTE = "prebuilt.json"


@dataclass
class Report:
    """What came of making the content of a server.

    Attributes:
        how: In words for people.
        ready: The templates that are there.
        failed: Those whose migration has failed, with the error.
    """

    how: str
    ready: list[str] = field(default_factory=list[str])
    failed: dict[str, CleanroomError] = field(default_factory=dict[str, CleanroomError])

    def as_file(self, directory: Path) -> dict[Path, str]:
        """Return the file by which other processes of the run will know."""
        failed = {name: error.to_dict() for name, error in self.failed.items()}
        note = {"how": self.how, "ready": self.ready, "failed": failed}
        return {directory / _NOTE: json.dumps(note)}


def report_of(service: ServiceHandle) -> Mapping[str, Any]:
    """Return what a report's file says, `{}` where the server was started with no content."""
    log = service.metadata.get("log")
    try:
        note = (Path(log).with_name(_NOTE)).read_text(encoding="utf-8") if log else "{}"
    except OSError:
        return {}
    return cast("Mapping[str, Any]", json.loads(note))


def was_ready(service: ServiceHandle, template: str) -> bool:
    """Whether a template was there when the server was started.

    Raises:
        CleanroomError: Its migration has failed.
    """
    report = report_of(service)
    if template in report.get("failed", {}):
        raise CleanroomError.from_dict(report["failed"][template])
    return template in report.get("ready", ())
