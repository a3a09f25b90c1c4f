"""`cleanroom cache`: what is kept from run to run, because it takes long to make."""

from __future__ import annotations

import click


@click.group(short_help="Show or clear what is kept from run to run.")
def cache() -> None:
    """Show or clear what is kept from run to run.

    These are data directories that a server has initialised: each run starts with a copy. They are
    made again when they are needed. CLEANROOM_CACHE_DIR says where they lie.
    """


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def show(as_json: bool) -> None:
    """Show where the cache is, what is in it, and how large that is."""
    from cleanroom_runtime._cache import cache_root, cached_directories

    root, found = cache_root(), cached_directories()
    if as_json:
        import json

        facts = [
            {
                "kind": each.kind,
                "folder": str(each.folder),
                "bytes": each.size,
                "facts": dict(each.facts),
            }
            for each in found
        ]
        click.echo(json.dumps({"root": str(root) if root else None, "found": facts}, indent=2))
        return
    from cleanroom_cli._output import in_bytes, plural, show_table

    if root is None:
        click.echo("There is no cache: this user has no home, and CLEANROOM_CACHE_DIR is not set.")
        return
    total = in_bytes(sum(each.size for each in found))
    click.echo(
        f"{root}: {plural(len(found), 'prepared directory', 'prepared directories')}, {total}"
    )
    groups: dict[tuple[str, str], list[int]] = {}
    for each in found:
        key = (each.kind, each.facts.get("version", "unknown"))
        groups.setdefault(key, []).append(each.size)
    if groups:
        rows = [
            (*key, str(len(sizes)), in_bytes(sum(sizes))) for key, sizes in sorted(groups.items())
        ]
        show_table(("kind", "version", "count", "size"), rows)


@cache.command()
@click.argument("kinds", nargs=-1, metavar="[KIND]...")
def clear(kinds: tuple[str, ...]) -> int:
    """Remove what is in the cache, or only what is of a KIND, such as `postgres`.

    A service that is being started at this moment may fail for it: clear while no tests run.
    """
    from cleanroom import ConfigurationError
    from cleanroom._errors import nearest
    from cleanroom_cli._output import in_bytes, plural
    from cleanroom_runtime._cache import cached_directories

    found = cached_directories()
    known = {each.kind for each in found}
    for kind in kinds:
        if kind not in known:
            raise ConfigurationError(f"the cache has no {kind!r}", hint=nearest(kind, known))
    doomed = [each for each in found if not kinds or each.kind in kinds]
    failed = 0
    for each in doomed:
        try:
            each.remove()
        except OSError as exc:
            failed += 1
            click.echo(f"{each.folder} could not be removed: {exc.strerror or exc}", err=True)
    freed = in_bytes(sum(each.size for each in doomed if not each.folder.exists()))
    count = plural(len(doomed) - failed, "prepared directory", "prepared directories")
    click.echo(f"Removed {count}, {freed}.")
    return 1 if failed else 0
