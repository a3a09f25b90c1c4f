"""`cleanroom up`: start services, say where they are, and stop them in the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_COMMAND = "cleanroom_cli.command"


class _WithCommand(click.Command):
    """Takes what stands behind `--` as the command to run, which click would mix with the rest."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            if not args[at + 1 :]:
                ctx.fail("no command behind '--'")
            ctx.meta[_COMMAND] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from cleanroom_cli._services import completions

    return [CompletionItem(name) for name in completions(incomplete)]


@click.command(cls=_WithCommand, short_help="Start services, for a command or until Ctrl-C.")
@click.argument("services", nargs=-1, metavar="[SERVICE]...", shell_complete=_complete)
@click.option(
    "-c", "--config", metavar="PATH", help="File or folder with declared services. [default: .]"
)
@click.option(
    "--env-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write NAME_URL=... of each service to this file, and remove it in the end.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one line of JSON instead of a table.")
@click.option("--show-secrets", is_flag=True, help="Show passwords in the table.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing of progress, and show no table.")
@click.pass_context
def up(
    ctx: click.Context,
    services: tuple[str, ...],
    config: str | None,
    env_file: Path | None,
    as_json: bool,
    show_secrets: bool,
    quiet: bool,
) -> int:
    """Start declared services, all of them or those named, with what they depend on.

    Where no service is declared of a plugin, its name starts one with its defaults: `cleanroom up
    postgres`. Services run until Ctrl-C, or until COMMAND has ended, which finds their URLs in its
    environment: DB_URL, for a service named db.

    Passwords are hidden in the table. They are in the environment of COMMAND, in the file of
    --env-file, which only this user can read, and in --json.

    Exit codes: that of COMMAND (128 and more where a signal ended it, 126 or 127 where it could not
    be run); without one, 0 once the services are up, however they are ended; 130 or 143 where
    Ctrl-C or SIGTERM came while they were starting; 1 where a service failed.
    """
    command = cast("list[str] | None", ctx.meta.get(_COMMAND))
    if as_json and command:
        ctx.fail("--json is of no use to COMMAND, which has the URLs in its environment")
    from cleanroom_cli._session import Wishes, run_services

    wishes = Wishes(env_file, as_json=as_json, show_secrets=show_secrets, quiet=quiet)
    return run_services(services, config, command, wishes)
