"""Takes the template along, from the root of the workspace or from a source distribution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class TemplateHook(BuildHookInterface[Any]):
    """Puts the template into the package."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the template to what is built, unless it is there already."""
        template = Path(self.root).parents[1] / "cookiecutter-plugin"
        inside = Path("cleanroom_cli", "_template")
        if version == "editable" or Path(self.root, "src", inside).is_dir():
            return
        place = inside if self.target_name == "wheel" else "src" / inside
        build_data["force_include"][str(template)] = str(place)
