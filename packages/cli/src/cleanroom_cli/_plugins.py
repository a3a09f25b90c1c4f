"""`cleanroom plugins`: what is installed, how it can run here, and what is broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from cleanroom.discovery import Installed


class _Known(NamedTuple):
    entry: Installed
    state: str
    backends: tuple[str, ...] = ()
    problem: str = ""


@click.command(short_help="List the installed plugins, and what is broken.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def plugins(as_json: bool) -> None:
    """List the installed plugins, and on which backends each can run here.

    Those that are broken are named with the reason, and so are broken hooks and modules of
    fixtures. The exit code is 0 all the same; `cleanroom doctor` judges.
    """
    from cleanroom import discovery

    known = [_plugin(entry) for entry in discovery.installed()]
    hooks = _hooks()
    fixtures = list(_problems_of_fixtures())
    if as_json:
        import json

        lists = {"plugins": known, "hooks": hooks}
        facts = {name: [_facts(each) for each in listed] for name, listed in lists.items()}
        click.echo(json.dumps({**facts, "fixture_problems": fixtures}, indent=2))
        return
    from cleanroom_cli._output import show_table

    if not known:
        click.echo("No plugin is installed. Try: pip install 'cleanroom-plugin-postgres[embedded]'")
    else:
        rows = [
            (each.entry.name, each.entry.distribution, each.entry.version, _in_short(each))
            for each in known
        ]
        show_table(("plugin", "distribution", "version", "backends here"), rows)
    for each in (*known, *hooks):
        if each.problem:
            click.echo(f"\n{each.state}: {each.problem}")
    for problem in fixtures:
        click.echo(f"\nbroken: {problem}")


def _plugin(entry: Installed) -> _Known:
    from cleanroom import PluginError, discovery
    from cleanroom_cli._backends import backends_here

    if entry.disabled:
        where = f"{entry.name} of {entry.distribution}"
        return _Known(entry, "off", (), f"CLEANROOM_DISABLE_PLUGINS switches off {where}")
    try:
        return _Known(entry, "ok", backends_here(discovery.load_plugin(entry.name)))
    except PluginError as exc:
        return _Known(entry, "broken", (), str(exc))
    except Exception as exc:  # noqa: BLE001 - whatever a plugin does
        return _Known(entry, "broken", (), f"plugin {entry.name!r} raised {exc!r}")


def _hooks() -> list[_Known]:
    from cleanroom import discovery

    discovery.hook_manager()
    return [
        _Known(
            entry,
            "off" if entry.disabled else "broken" if entry.error else "ok",
            problem=str(entry.error or ""),
        )
        for entry in discovery.installed("cleanroom.hooks")
    ]


def _problems_of_fixtures() -> Iterator[str]:
    """Say which modules of pytest fixtures cannot be loaded; none is used without pytest."""
    from importlib import import_module
    from importlib.util import find_spec

    from cleanroom import hooks

    if find_spec("pytest") is None:
        return
    for module in hooks.fixture_modules():
        try:
            import_module(module)
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever a plugin does
            yield f"the fixtures in {module} cannot be used: {type(exc).__name__}: {exc}"


def _in_short(known: _Known) -> str:
    return (", ".join(known.backends) or "none") if known.state == "ok" else known.state


def _facts(known: _Known) -> dict[str, object]:
    return {
        "name": known.entry.name,
        "distribution": known.entry.distribution,
        "version": known.entry.version,
        "value": known.entry.value,
        "state": known.state,
        "backends": known.backends,
        "problem": known.problem or None,
    }
