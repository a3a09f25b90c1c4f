"""`cleanroom cache`: what is kept from run to run, because it takes long to make."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pathlib import Path

    from cleanroom_runtime._cache import CachedDirectory


@click.group(short_help="Show or clear what is kept from run to run.")
def cache() -> None:
    """Show or clear what is kept from run to run.

    These are data directories, as a server and migrations have left them: each run starts with a
    copy. They are made again when they are needed. When a new one is made, those go that were not
    used for 30 days, and the longest unused of more than 2 GiB. CLEANROOM_CACHE_DIR says where they
    lie.
    """


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def show(as_json: bool) -> None:
    """Show where the cache is, what is in it, how large that is, and when it was used last."""
    from cleanroom_runtime._cache import cached_directories
    from cleanroom_runtime._caches import cache_root
    from cleanroom_runtime._prune import last_use

    root, found = cache_root(), cached_directories()
    if as_json:
        import json

        facts = [
            {
                "kind": each.kind,
                "folder": str(each.folder),
                "bytes": each.size,
                "last_used": _in_iso(last_use(each.folder)),
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
    groups: dict[tuple[str, str], list[CachedDirectory]] = {}
    for each in found:
        key = (each.kind, each.facts.get("version", "unknown"))
        groups.setdefault(key, []).append(each)
    if groups:
        rows: list[tuple[str, ...]] = []
        for key, group in sorted(groups.items()):
            size = in_bytes(sum(each.size for each in group))
            used = max(last_use(each.folder) for each in group)
            rows.append((*key, str(len(group)), size, _in_days(time.time() - used)))
        show_table(("kind", "version", "count", "size", "last used"), rows)


def _in_iso(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _in_days(seconds: float) -> str:
    """Return how long ago something was, as people say it."""
    days = int(seconds // (24 * 60 * 60))
    return "today" if days < 1 else "yesterday" if days == 1 else f"{days} days ago"


@cache.command()
@click.argument("kinds", nargs=-1, metavar="[KIND]...")
def clear(kinds: tuple[str, ...]) -> int:
    """Remove what is in the cache, or only what is of a KIND, such as `postgres`.

    With no KIND, it is also forgotten what earlier runs had launched, and the versions of programs.
    A service that is being started at this moment may fail for it: clear while no tests run.
    """
    from cleanroom import ConfigurationError
    from cleanroom._errors import nearest
    from cleanroom_cli._output import in_bytes, plural
    from cleanroom_runtime._cache import cached_directories
    from cleanroom_runtime._caches import cache_root
    from cleanroom_runtime._prune import prune
    from cleanroom_runtime._small_files import forget_all

    found = cached_directories()
    known = {each.kind for each in found}
    for kind in kinds:
        if kind not in known:
            raise ConfigurationError(f"the cache has no {kind!r}", hint=nearest(kind, known))
    doomed = [each for each in found if not kinds or each.kind in kinds]
    root = cache_root()
    before = _bytes_in(root)
    failed = 0
    for each in doomed:
        try:
            each.remove()
        except OSError as exc:
            failed += 1
            click.echo(f"{each.folder} could not be removed: {exc.strerror or exc}", err=True)
    useless: list[Path] = []
    if root and not kinds:
        useless = prune(root, unused_for=0)  # what no run can use
        forget_all(root)
    freed = in_bytes(before - _bytes_in(root))
    gone = len(doomed) - failed + len(useless)
    count = plural(gone, "prepared directory", "prepared directories")
    click.echo(f"Removed {count}, {freed}.")
    return 1 if failed else 0


def _bytes_in(root: Path | None) -> int:
    files = root.rglob("*") if root else ()
    return sum(path.lstat().st_size for path in files if not path.is_dir())
