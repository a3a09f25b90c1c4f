"""`cleanroom plugins`: what is installed."""

from __future__ import annotations

import click


@click.command()
def plugins() -> None:
    """List the installed plugins."""
    from cleanroom import discovery

    for entry in discovery.installed():
        click.echo(f"{entry.name}  {entry.distribution} {entry.version}")
