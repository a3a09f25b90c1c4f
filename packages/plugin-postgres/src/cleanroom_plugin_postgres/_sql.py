"""Splitting a script into statements as psql does, by PostgreSQL's own lexical rules.

The rules are those of "Lexical Structure" in PostgreSQL's manual. A statement ends at a semicolon
that is outside of strings, comments, parentheses and `BEGIN ATOMIC ... END` bodies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from cleanroom import ServiceError


@dataclass(frozen=True)
class Statement:
    r"""One statement of a script.

    Args:
        text: The statement from its first word up to its semicolon, which is left out.
        line: The line of the script, from 1, on which `text` starts.
        copy_data: For `COPY ... FROM STDIN`, the lines that follow it, up to `\.`.
        copies_out: Whether it is a `COPY ... TO STDOUT`.
    """

    text: str
    line: int
    copy_data: str | None = None
    copies_out: bool = False


def split(
    script: str, *, source: str = "script", service: str | None = None
) -> Iterator[Statement]:
    r"""Yield the statements of `script`. Comments between them and empty ones are left out.

    What is never closed (a string, a comment, a parenthesis) reaches to the end of the script: the
    server then says what is wrong with it. `\echo`, `\restrict` and `\unrestrict`, which newer
    versions of `pg_dump` write, are passed over.

    Args:
        script: The SQL.
        source: What to call the script in an error.
        service: The service to name in an error.

    Raises:
        ServiceError: The script holds another command of psql, a NUL character, or more statements
            on the line of a `COPY ... FROM STDIN`.
    """
    if "\0" in script:
        line = script.count("\n", 0, script.index("\0")) + 1
        what = f"{source}, line {line}: a NUL character, which no statement can hold"
        raise ServiceError(what, service=service, hint="is it a text file, in UTF-8?")
    lexis = _LEXIS
    position = 1 if script.startswith("\ufeff") else 0
    line, counted = 1, 0
    while (start := _skip_blank(script, position)) < len(script):
        line, counted = line + script.count("\n", counted, start), start
        if ignored := _IGNORED.match(script, start):
            position = ignored.end()
            continue
        end, shape = _read(script, start, lexis)
        text = script[start:end]
        if refusal := _refusal(script, end, shape):
            what, hint = refusal
            last = line + text.count("\n")
            raise ServiceError(f"{source}, line {last}: {what}", service=service, hint=hint)
        position, data = end + 1, None
        if shape.copies == "from":
            position, data = _copy_data(script, end)
        if end == len(script):
            text = text.rstrip(" \t\r\n\f\v")
        yield Statement(text, line, data, copies_out=shape.copies == "to")
        if setting := _STRINGS_SETTING.match(text):
            lexis = _OLD_LEXIS if setting["value"].lower() in _OFF else _LEXIS


# ---------------------------------------------------------------------- tokens

_WORD_START = r"A-Za-z_\x80-\U0010ffff"  # PostgreSQL takes all beyond ASCII for letters.
_ESCAPED = r"'(?:[^'\\]++|\\(?:.|\Z)|'')*+(?:'|\Z)"
# A string goes on, by the same rules, in another one that starts on a later line.
_CONTINUED = (
    rf"{_ESCAPED}(?:(?:[ \t\f\v]|--[^\r\n]*+)*+[\r\n](?:[ \t\r\n\f\v]|--[^\r\n]*+)*+{_ESCAPED})*+"
)


class _Lexis:
    """The tokens of statements.

    Attributes:
        token: Matches the next token.
        hop: The same, but takes at once all that cannot matter to where the statement ends,
            unless its words do.
    """

    def __init__(self, escape_prefix: str) -> None:
        self._blank = r"[ \t\r\n\f\v]++ | --[^\r\n]*+"
        self._string = rf"""{escape_prefix}{_CONTINUED} | '[^']*+(?:'|\Z) | "[^"]*+(?:"|\Z)"""
        # Letters right after a number belong to it.
        self._word = rf"[0-9]*+[{_WORD_START}][$0-9{_WORD_START}]*+ | [0-9]++"
        self._rest = rf"""
          | (?P<comment> /\* )
          | (?P<string> {self._string} )
          | (?P<dollar> \$(?:[{_WORD_START}][0-9{_WORD_START}]*+)?\$ )
          | (?P<word> {self._word} )
          | (?P<symbol> . )
        """

    @cached_property  # compiling takes longer than splitting most scripts
    def token(self) -> re.Pattern[str]:
        return re.compile(rf"(?P<blank> {self._blank} ) {self._rest}", re.DOTALL | re.VERBOSE)

    @cached_property
    def hop(self) -> re.Pattern[str]:
        blank = rf"(?P<blank> (?: {self._blank} | {self._string} | {self._word} | [.,=] )++ )"
        return re.compile(f"{blank} {self._rest}", re.DOTALL | re.VERBOSE)


_LEXIS = _Lexis("[eE]")
# With standard_conforming_strings off, as old dumps may set it, no string needs its E.
_OLD_LEXIS = _Lexis("[eE]?")
_STRINGS_SETTING = re.compile(
    r"set\s+(?:(?:session|local)\s+)?standard_conforming_strings\s*(?:=|\bto\b)\s*'?(?P<value>\w+)",
    re.IGNORECASE,
)
_OFF = frozenset({"off", "false", "no", "0", "of", "f", "n"})
_COMMENT_MARK = re.compile(r"/\*|\*/")


def _skip_blank(script: str, position: int) -> int:
    """Return where the next statement or command starts; the end of `script` if none does."""
    while token := _LEXIS.token.match(script, position):
        if token.lastgroup == "comment":
            end = _comment_end(script, position)
            if end is None:
                break
            position = end
        elif token.lastgroup == "blank" or token.group() == ";":
            position = token.end()
        else:
            break
    return position


def _read(script: str, start: int, lexis: _Lexis) -> tuple[int, _Shape]:
    """Return where the statement at `start` ends: at a semicolon, a backslash or the script's."""
    shape, position = _Shape(), start
    while found := (lexis.token if shape.words_matter else lexis.hop).match(script, position):
        text, end = found.group(), found.end()
        match found.lastgroup:
            case "comment":
                end = _comment_end(script, position) or len(script)
            case "dollar":
                close = script.find(text, end)
                end = close + len(text) if close >= 0 else len(script)
                shape.previous = ""
            case "word":
                shape.add_word(text.lower())
            case "symbol":
                if text == "\\" or (text == ";" and shape.is_closed):
                    break
                shape.add_symbol(text)
            case "string":
                shape.previous = ""
            case _:  # blanks tell nothing
                pass
        position = end
    return position, shape


def _comment_end(script: str, start: int) -> int | None:
    """Return where the comment at `start` ends, those nested in it included."""
    depth = 0
    for mark in _COMMENT_MARK.finditer(script, start):
        depth += 1 if mark.group() == "/*" else -1
        if depth == 0:
            return mark.end()
    return None


@dataclass
class _Shape:
    """What the words and parentheses of a statement, read so far, say about its end."""

    first: str = ""
    previous: str = ""
    parentheses: int = 0
    blocks: int = 0
    copies: str = ""

    @property
    def words_matter(self) -> bool:
        """Whether a word that is yet to come can say something about the end."""
        return self.first in {"", "create", "copy"}

    @property
    def is_closed(self) -> bool:
        """Whether a semicolon here ends the statement."""
        return not self.parentheses and not self.blocks

    def add_word(self, word: str) -> None:
        """Take note of a keyword or name, in lower case."""
        self.first = self.first or word
        if not self.parentheses:
            if self.blocks:
                # After a dot or AS, each of the two is a name.
                if self.previous not in {".", "as"}:
                    self.blocks += (word == "case") - (word == "end")
            elif self.first == "create" and (self.previous, word) == ("begin", "atomic"):
                self.blocks = 1
            if self.first == "copy" and word in {"stdin", "stdout"}:
                # The server takes either word for either direction.
                self.copies = self.previous if self.previous in {"from", "to"} else self.copies
        self.previous = word

    def add_symbol(self, symbol: str) -> None:
        """Take note of any other character."""
        if symbol == "(":
            self.parentheses += 1
        elif symbol == ")" and self.parentheses:
            self.parentheses -= 1
        self.previous = symbol


# ------------------------------------------------------------ commands and data

_IGNORED = re.compile(
    r"\\(?:echo|restrict|unrestrict)(?!\S)(?>'(?:[^'\\\n]|\\[^\n])*'|[^\\\n])*+(?=\n|\Z)"
)
_COMMAND = re.compile(r"\\(?:[A-Za-z_]+|\S)?")
_ONE_DATABASE = "a script runs in one database; leave it out, and make a dump without --create"
_ONE_BY_ONE = "pass each file as a script of its own, in order"
_ADVICE = {
    "c": _ONE_DATABASE,
    "connect": _ONE_DATABASE,
    "copy": "use COPY ... FROM STDIN with the data below it, or INSERT",
    "g": "end the statement with a semicolon",
    "i": _ONE_BY_ONE,
    "include": _ONE_BY_ONE,
    "include_relative": _ONE_BY_ONE,
    "ir": _ONE_BY_ONE,
    "set": "write the value where the variable stands",
}
_GENERAL_ADVICE = "leave the command out, or say the same in SQL"
_REST_OF_LINE = re.compile(r";?[ \t\r\f\v]*+(?:--[^\n]*+)?(?:\n|\Z)")
_END_OF_DATA = re.compile(r"^\\\.\r?(?:\n|\Z)", re.MULTILINE)


def _refusal(script: str, end: int, shape: _Shape) -> tuple[str, str] | None:
    """Return what is wrong at the `end` of a statement and what to do about it."""
    if command := _COMMAND.match(script, end):
        advice = _ADVICE.get(command.group()[1:], _GENERAL_ADVICE)
        return f"{command.group()} is a command of psql, and those are not supported", advice
    if shape.copies == "from" and not _REST_OF_LINE.match(script, end):
        hint = "the data starts on the next line; put what follows the semicolon after the data"
        return "more on the line of a COPY ... FROM STDIN", hint
    return None


def _copy_data(script: str, end: int) -> tuple[int, str]:
    """Return where the data after the statement that ends at `end` is over, and the data."""
    start = script.find("\n", end) + 1 or len(script)
    last = _END_OF_DATA.search(script, start)
    if last is None:
        return len(script), script[start:]
    return last.end(), script[start : last.start()]
