"""The command `cleanroom` and how it finds its subcommands: each is imported when it is asked for.

A subcommand is a click command in a module of this package. What such a module imports at its top
is loaded by `cleanroom --help`, so that rich and the runtime are imported where they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

import click

from cleanroom_cli import __version__

_COMMANDS = {
    "up": "_up",
    "plugins": "_plugins",
    "doctor": "_doctor",
    "clean": "_clean",
    "cache": "_cache",
    "new": "_new",
}
"""The subcommands in the order in which they are listed, and the modules they are in."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"cleanroom_cli.{_COMMANDS[cmd_name]}")
        return _with_debug(cast("click.Command", getattr(module, cmd_name)))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _COMMANDS and not args[0].startswith("-"):
            from cleanroom._errors import nearest

            ctx.fail(f"no such command {args[0]!r}: {nearest(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)


def _with_debug(command: click.Command) -> click.Command:
    """Let `--debug` stand behind a subcommand as well as before it."""
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _with_debug(each)
    elif _DEBUG not in command.params:
        command.params.append(_DEBUG)
    return command


def _note_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(dict)["debug"] = True


_DEBUG = click.Option(
    ["--debug"],
    is_flag=True,
    expose_value=False,
    callback=_note_debug,
    help="Show the traceback of an error.",
)


@click.command(
    cls=_Lazy,
    params=[_DEBUG],
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
)
@click.version_option(__version__, prog_name="cleanroom")
def cleanroom() -> None:
    """Real services for tests, without a test: start them, and look after what runs leave."""
