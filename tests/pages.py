"""Pages of documentation, and what can be run of them.

A page is a project: its blocks are put into one folder and run there. What stands behind the
language of a block says what it is:

- `file=conftest.py`: the content of this file. Blocks for `pyproject.toml` are joined.
- `skip="needs a container engine"`: not run, for this reason.

Any other block of Python is run as well: by pytest if it has tests, else as a script. Commands in
a `console` block are run after all files are there. A comment of HTML may hold blocks that readers
are not shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

_BLOCK = re.compile(
    r"^(?P<fence>```+)(?P<language>\w+)(?P<info>[^\n]*)\n(?P<text>.*?)^(?P=fence)$", re.M | re.S
)
_FACT = re.compile(r' (?:file=(?P<file>\S+)|skip="(?P<skip>[^"]+)")')
_TEST = re.compile(r"^\s*(?:async )?def test_", re.M)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    file: str | None
    skip: str | None

    @property
    def has_tests(self) -> bool:
        """Whether there is something in it for pytest to collect."""
        return bool(_TEST.search(self.text))

    @property
    def commands(self) -> list[str]:
        """The commands of a `console` block, without comments."""
        lines = (re.sub(r"\s{2,}# .*", "", line) for line in self.text.splitlines())
        return [line for line in lines if line.strip()]


def pages() -> list[Path]:
    """All pages whose blocks are run: the documentation, and the READMEs of packages."""
    return sorted([*DOCS.rglob("*.md"), *ROOT.glob("packages/*/README.md")])


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page.

    Raises:
        ValueError: What stands behind a language cannot be read.
    """
    content = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in _BLOCK.finditer(content):
        line = content.count("\n", 0, match.start()) + 1
        facts = _FACT.fullmatch(match["info"]) if match["info"].strip() else None
        if facts is None and match["info"].strip():
            raise ValueError(f"{page}:{line}: cannot read {match['info']!r}")
        file, skip = (facts["file"], facts["skip"]) if facts else (None, None)
        found.append(Block(match["language"], match["text"], line, file, skip))
    return found


def make_project(page: Path, folder: Path) -> None:
    """Write the files of a page into a folder.

    Raises:
        ValueError: A file is there twice.
    """
    place = re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")))
    scripts: list[str] = []
    for block in blocks(page):
        if block.skip:
            continue
        name = block.file
        if name is None and block.language == "python":
            kind = "test_block" if block.has_tests else "block"
            name = f"{kind}_{place}_{block.line}.py"
            if kind == "block":
                scripts.append(name)
        if name is not None:
            _write(folder / name, block.text)
    if scripts:
        _write(folder / f"test_scripts_{place}.py", _RUN_SCRIPTS.format(scripts=scripts))


def _write(file: Path, text: str) -> None:
    if file.exists() and file.name != "pyproject.toml":
        raise ValueError(f"{file.name} is there already")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as opened:
        opened.write(text)


_RUN_SCRIPTS = """\
import runpy
import pytest

@pytest.mark.parametrize("script", {scripts})
def test_script(script):
    runpy.run_path(script)
"""
