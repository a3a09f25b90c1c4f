"""`cleanroom doctor`: what services would run on here, and what to do about what is missing."""

from __future__ import annotations

import click


@click.command(short_help="Check what services need, and say what to do.")
@click.option(
    "-c", "--config", metavar="PATH", help="File or folder with declared services. [default: .]"
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def doctor(config: str | None, as_json: bool) -> int:
    """Check what services need: engine, servers, folders; and whether declared ones can start.

    Each check is `ok`; `warn`, where something is missing that not everybody needs; or `fail`,
    where a service that is installed or declared cannot run. Nothing is started. The exit code is 1
    where a check fails.
    """
    from cleanroom_cli._checks import all_checks

    checks = list(all_checks(config))
    if as_json:
        import json

        click.echo(json.dumps([each._asdict() for each in checks], indent=2))
    else:
        from cleanroom_cli._output import show_table

        rows: list[tuple[str, str, str]] = []
        for each in checks:
            rows.append((each.state, each.what, each.found))
            if each.remedy:
                rows.append(("", "", f"remedy: {each.remedy}"))
        show_table(("state", "check", "found"), rows)
    return 1 if any(each.state == "fail" for each in checks) else 0
