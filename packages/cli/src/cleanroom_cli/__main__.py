"""`cleanroom`, and `python -m cleanroom_cli`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from cleanroom_cli._command import cleanroom

FAILED = 1
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Those of the command line; by default this process's.

    Returns:
        The exit code: 0; 1 where something failed; 2 for wrong usage; 130 where it was
        interrupted; of `up -- COMMAND`, that of the command.
    """
    settings: dict[str, bool] = {}
    try:
        code = cleanroom.main(arguments, "cleanroom", standalone_mode=False, obj=settings)
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except click.Abort:
        return INTERRUPTED
    except Exception as exc:  # noqa: BLE001 - what is not ours is shown whole
        return _fail(exc, debug=settings.get("debug", False))
    return code if isinstance(code, int) else 0


def _fail(error: Exception, *, debug: bool) -> int:
    """Say what happened. An error that nobody raised on purpose is shown with its traceback."""
    from cleanroom import CleanroomError
    from cleanroom._secrets import scrub

    if debug or not isinstance(error, CleanroomError):
        import traceback

        text = "".join(traceback.format_exception(error))
        click.echo(scrub(text), err=True, nl=False)
    else:
        notes: list[str] = getattr(error, "__notes__", [])
        click.echo(scrub("\n".join([f"Error: {error}", *notes])), err=True)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
