"""Running SQL scripts, such as init scripts, migrations and dumps, with the meaning psql gives."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from cleanroom import InternalError, ServiceError, ValidationError
from cleanroom_plugin_postgres._sql import Statement, split

if TYPE_CHECKING:
    from psycopg import Connection, Error

_SUFFIXES = (".sql", ".sql.gz")
_SUPPORTED = "a script is SQL in a str, or the Path of a .sql or .sql.gz file in UTF-8"
_EXCERPT = 200  # characters


def read_script(script: str | os.PathLike[str]) -> tuple[str, str]:
    """Return what to call the script in an error, and its SQL.

    Args:
        script: The SQL itself, or the path of a file that holds it.

    Raises:
        ValidationError: There is no such file, or it is not a script that can be run.
    """
    if not isinstance(script, str):
        return os.fspath(script), _read_file(Path(script))
    if script.endswith(_SUFFIXES) and not re.search(r"[\s;]", script):
        message = f"script {script!r} is the name of a file, and a str is taken for SQL itself"
        raise ValidationError(message, hint=f"pass pathlib.Path({script!r})")
    return "script", script


def run_script(connection: Connection[object], script: str, *, source: str, service: str) -> None:
    """Run every statement of `script` on its own, and stop at the first that fails.

    The whole script is split before its first statement runs. What a script sets, such as
    `search_path`, stays set: the connection should be one that was made for the script.

    Args:
        connection: A connection in autocommit mode.
        script: The SQL.
        source: What to call the script in an error.
        service: The service to name in an error.

    Raises:
        ServiceError: A statement failed, the script cannot be split, or it ends inside of a
            transaction. A transaction that it left open is rolled back.
        InternalError: The connection is not in autocommit mode.
    """
    import psycopg

    if not connection.autocommit:
        raise InternalError("scripts need a connection in autocommit mode", service=service)
    statements = list(split(script, source=source, service=service))
    _send_utf8(connection)
    begun = 0
    try:
        for statement in statements:
            try:
                _run(connection, statement)
            except psycopg.Error as error:
                raise _failure(connection, script, statement, error, source, service) from error
            begun = (begun or statement.line) if _in_transaction(connection) else 0
        if begun:
            raise ServiceError(
                f"{source} ends inside the transaction begun on line {begun}; it was rolled back",
                service=service,
                hint="end the script with COMMIT",
            )
    finally:
        if _in_transaction(connection):
            with contextlib.suppress(psycopg.Error):
                connection.rollback()


# --------------------------------------------------------------------- reading


def _read_file(path: Path) -> str:
    if not path.name.endswith(_SUFFIXES):
        raise ValidationError(
            f"script {str(path)!r} is of no kind that can be run", hint=_SUPPORTED
        )
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except FileNotFoundError as error:
        message = f"script {str(path)!r} does not exist"
        raise ValidationError(message, hint=f"looked for {path.absolute()}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValidationError(f"script {str(path)!r} cannot be read: {error}") from error
    if content.startswith(b"PGDMP"):
        message = f"script {str(path)!r} is an archive of pg_dump, not SQL"
        raise ValidationError(message, hint="make the dump with --format=plain")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = (
            f"script {str(path)!r} is not UTF-8: byte {content[error.start]:#04x}, line {line}"
        )
        raise ValidationError(message, hint=_SUPPORTED) from error


# --------------------------------------------------------------------- running


def _send_utf8(connection: Connection[object]) -> None:
    """Make the server take the script for what it is, whatever the database's own encoding."""
    if connection.info.parameter_status("client_encoding") != "UTF8":
        connection.execute("SET client_encoding TO 'UTF8'")


def _run(connection: Connection[object], statement: Statement) -> None:
    # As bytes and unprepared, the statement goes out as it stands, as a simple query.
    text = statement.text.encode()
    with connection.cursor() as cursor:
        if statement.copy_data is not None:
            with cursor.copy(text) as copy:
                copy.write(statement.copy_data.encode())
        elif statement.copies_out:
            with cursor.copy(text) as copy:
                for _ in copy:  # psql prints it; here nobody reads it
                    pass
        else:
            cursor.execute(text, prepare=False)


def _in_transaction(connection: Connection[object]) -> bool:
    from psycopg.pq import TransactionStatus

    status = connection.info.transaction_status
    return status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}


# -------------------------------------------------------------------- failures

_COPY_LINE = re.compile(r"^COPY .+?, line (\d+)", re.MULTILINE)
_BLOCK_LINE = re.compile(r"^PL/pgSQL function inline_code_block line (\d+)", re.MULTILINE)
_CALLS = re.compile(r"^PL/\w+ function .+ line \d+ at .+$", re.MULTILINE)
_PASSWORD = re.compile(r"(?P<key>\bpassword\s*[eEnN]?)'(?:[^']|'')*+'?", re.IGNORECASE)


def _failure(
    connection: Connection[object],
    script: str,
    statement: Statement,
    error: Error,
    source: str,
    service: str,
) -> ServiceError:
    facts = error.diag
    line, column = _place(statement, error, _counts_bytes(connection))
    lines = [f"{source}, line {line}: {facts.message_primary or error}"]
    lines.append(f"  {line} | {_excerpt(script.split(chr(10))[line - 1], column)}")
    if facts.message_detail:
        lines.append(f"  detail: {facts.message_detail}")
    lines.extend(f"  in {call}" for call in _CALLS.findall(facts.context or ""))
    return ServiceError("\n".join(lines), service=service, hint=facts.message_hint)


def _place(statement: Statement, error: Error, counts_bytes: bool) -> tuple[int, int]:
    """Return the line of the script, from 1, and the column, from 0, that the server points at.

    Without a position it is the line of the data that `COPY` stopped at, the line of a `DO` block
    that failed, or else the line on which the statement starts.
    """
    text, context = statement.text, error.diag.context or ""
    if error.diag.statement_position:
        offset = int(error.diag.statement_position) - 1
        if counts_bytes:
            offset = len(text.encode()[:offset].decode(errors="ignore"))
        before = text[:offset]
        return statement.line + before.count("\n"), len(before) - before.rfind("\n") - 1
    if statement.copy_data is not None and (found := _COPY_LINE.search(context)):
        return statement.line + text.count("\n") + int(found[1]), 0
    if (found := _BLOCK_LINE.search(context)) and (body := re.search(r"[$']", text)):
        return statement.line + text.count("\n", 0, body.start()) + int(found[1]) - 1, 0
    return statement.line, 0


def _counts_bytes(connection: Connection[object]) -> bool:
    """Whether the server gives positions in bytes, for want of an encoding."""
    if connection.closed:
        return False
    return connection.info.parameter_status("server_encoding") == "SQL_ASCII"


def _excerpt(line: str, column: int) -> str:
    """Return the part of `line` around `column`, without passwords."""
    line = _PASSWORD.sub(r"\g<key>'***'", line.rstrip())
    start = max(0, min(column, len(line)) - _EXCERPT // 2) if len(line) > _EXCERPT else 0
    part = line[start : start + _EXCERPT]
    return f"{'...' if start else ''}{part}{'...' if start + _EXCERPT < len(line) else ''}"
