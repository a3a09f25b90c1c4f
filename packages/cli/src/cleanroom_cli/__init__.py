"""The `cleanroom` command. A program, not a library: `python -m cleanroom_cli` runs it too."""

__version__ = "0.1.0"

__all__: list[str] = []
