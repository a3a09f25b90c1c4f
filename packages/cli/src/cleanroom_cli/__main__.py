"""`cleanroom`, and `python -m cleanroom_cli`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from cleanroom_cli._command import cleanroom

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Those of the command line; by default this process's.

    Returns:
        The exit code: 0, 1 where something failed, 2 for wrong usage, 130 where it was interrupted.
    """
    meta: dict[str, object] = {}
    try:
        code = cleanroom.main(arguments, prog_name="cleanroom", standalone_mode=False, obj=meta)
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
