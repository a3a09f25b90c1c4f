"""SQL scripts mean what they mean to psql, on any server, without psql."""

import gzip
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from cleanroom import InternalError, ServiceError, ValidationError
from cleanroom_plugin_postgres import Database
from cleanroom_plugin_postgres._isolation import with_database
from cleanroom_plugin_postgres._scripts import read_script, run_script
from cleanroom_plugin_postgres._servers import local_servers
from cleanroom_plugin_postgres._sql import Statement, split


def texts(script: str) -> list[str]:
    return [statement.text for statement in split(script)]


# ------------------------------------------------------------------- splitting


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'a;b'",
        "SELECT 'it''s; fine'",
        r"SELECT 'C:\', ';'",
        r"SELECT E'it\'s; fine', e'\\', ';'",
        r"SELECT E'a''b\';'",
        "SELECT E'a' -- goes on\n  'b\\';c'",
        r"SELECT U&'\0441;' || U&'d!0061;' UESCAPE '!'",
        r"SELECT namE'\'",
        "SELECT B'1;0', X'1;F', N'a;b'",
        'SELECT ";" AS "a"";b"',
        'SELECT 1 AS U&"d\\0061;"',
        "SELECT $$ a; 'b $x$ \" $$",
        "SELECT $x$ a; $$ ; $X$ ; $y$ $x$",
        "SELECT $été$;$été$",
        "SELECT a$b$ FROM c$b$",
        "SELECT $1, $2, 1$$;$$",
        r"SELECT 1e'\'",
        "SELECT 1 -- one; '\n, 2",
        "SELECT 1 /* one; /* nested; ' */ still; \" */, 2",
        "SELECT 2 */* ; */ 3",
        "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b)",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END",
        "create or replace procedure p()\nbegin /* ; */ atomic\n"
        "  insert into t select case when a then case b when 1 then 2 end end from u;\n"
        "  select t.end, x.case, 1 as end, (case when true then 1 end);\nend",
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql RETURN CASE WHEN true THEN ';' END",
        "BEGIN",
        "END",
        "SELECT begin, atomic FROM t",
        "COPY (SELECT ';' FROM stdin) TO '/tmp/x'",
        "COPY stdin FROM '/tmp/x'",
        "SELECT 'ünï', '😀;'",
    ],
)
def test_semicolon_within(statement: str) -> None:
    """A semicolon that belongs to the statement does not end it, and one that does not, does."""
    assert texts(f"{statement};SELECT 'next';") == [statement, "SELECT 'next'"]


def test_nothing_between() -> None:
    """Comments, blanks and empty statements between statements are left out."""
    assert texts(" ;; -- a;\n/* b; */ SELECT 1 /* c */ ; ; -- d\nSELECT 2; /* e; /* f */ */ ;") == [
        "SELECT 1 /* c */ ",
        "SELECT 2",
    ]
    assert texts("") == texts(" \r\n-- only this") == texts("\ufeff;") == []


def test_last_semicolon_missing() -> None:
    """The last statement needs no semicolon."""
    assert texts("SELECT 1; SELECT 2 -- two\n") == ["SELECT 1", "SELECT 2 -- two"]


@pytest.mark.parametrize(
    "rest",
    ["SELECT 'a; b;", 'SELECT "a; b', "SELECT $$ a; b $x$", "SELECT (1; 2;", "/* a; /* b */ c;"],
)
def test_never_closed(rest: str) -> None:
    """What is never closed reaches to the end, where the server complains about it."""
    assert texts(f"SELECT 1;{rest}") == ["SELECT 1", rest]


def test_lines() -> None:
    """A statement's line is the one its first word is on, whatever the line ends are."""
    script = "\ufeff-- a\n\nSELECT 1;\n/* b\n*/ SELECT\n2; SELECT '\n';\nSELECT 3"
    for ends in ("\n", "\r\n"):
        lines = [statement.line for statement in split(script.replace("\n", ends))]
        assert lines == [3, 5, 6, 8]


def test_old_strings() -> None:
    """A script that turns standard_conforming_strings off has backslashes in its strings."""
    off = "SET standard_conforming_strings = off"
    on = "SET SESSION standard_conforming_strings TO 'on'"
    escaped, plain = r"SELECT 'a\';b'", r"SELECT 'a\'"
    assert texts(f"{off};{escaped};{on};{plain};{plain}") == [off, escaped, on, plain, plain]


def test_copy_data() -> None:
    r"""The lines after `COPY ... FROM STDIN` are its data, up to `\.`, and are not SQL."""
    script = (
        "COPY a (x, y) FROM stdin;\n1;\t\\N\n'\t\\\\.\n\\.\n\n"
        "COPY b FROM STDIN (FORMAT csv); -- c\r\n"
        '"a;\n"\r\n\\.\r\nCOPY c FROM stdin;\n\\.\nSELECT 1;COPY d\n  FROM stdout;\nto the end'
    )
    assert list(split(script)) == [
        Statement("COPY a (x, y) FROM stdin", 1, "1;\t\\N\n'\t\\\\.\n"),
        Statement("COPY b FROM STDIN (FORMAT csv)", 6, '"a;\n"\r\n'),
        Statement("COPY c FROM stdin", 10, ""),
        Statement("SELECT 1", 12),
        Statement("COPY d\n  FROM stdout", 12, "to the end"),
    ]


def test_copy_out() -> None:
    """A `COPY ... TO STDOUT` is told from one that reads."""
    assert [s.copies_out for s in split("COPY a TO STDOUT; COPY (SELECT 1) TO 'stdout'")] == [
        True,
        False,
    ]


def test_more_after_copy() -> None:
    """Another statement on the line of a `COPY ... FROM STDIN` is refused: data comes next."""
    with pytest.raises(ServiceError, match=r"^a\.sql, line 2: more on the line of a COPY"):
        list(split("SELECT 1;\nCOPY a FROM stdin; SELECT 2;\n\\.\n", source="a.sql"))


def test_commands_of_dumps() -> None:
    """What pg_dump and installation scripts write for psql alone is passed over."""
    script = "\\restrict aB3\nSELECT 1; \\echo 'it\\'s' don't; \n\\unrestrict aB3\r\n\\echo"
    assert texts(script) == ["SELECT 1"]


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (r"\connect other", "without --create"),
        (r"\i other.sql", "a script of its own"),
        (r"\copy a FROM 'a.csv'", "COPY ... FROM STDIN"),
        (r"\set x 1", "write the value"),
        (r"\echoes", "say the same in SQL"),
        (r'\echo Use "CREATE EXTENSION a" to load this file. \quit', "say the same in SQL"),
        (r"SELECT 1 \gexec", "say the same in SQL"),
        (r"SELECT 1 \; SELECT 2", "say the same in SQL"),
        ("\\", "say the same in SQL"),
    ],
)
def test_commands_of_psql(command: str, hint: str) -> None:
    """Any other command of psql is refused by line and name, with what to do instead."""
    with pytest.raises(ServiceError, match=r"line 3: \\\S* is a command of psql") as caught:
        list(split(f"SELECT 1;\n\n{command}\n", service="db"))
    assert hint in str(caught.value.hint)
    assert caught.value.service == "db"


def test_nul() -> None:
    """A NUL character is refused, where libpq would cut the statement off in silence."""
    with pytest.raises(ServiceError, match="line 2: a NUL"):
        list(split("SELECT 1;\nSELECT 'a\0';"))


def test_nothing_is_lost() -> None:
    """Of any mix of tokens, what is in no statement is blank, comment or semicolon."""
    pieces = [*"'\"();-/*$x1\n \r", "--", "/*", "*/", "$$", "$a$", "E'", "''", ";\n", "é", "end;"]
    pieces += ["begin ", "atomic ", "create function ", "case ", "end ", "/**/", "-- it's\n"]
    random = Random(4)  # the same on every run, so that a failure stays
    for _ in range(3000):
        script = "".join(random.choices(pieces, k=random.randint(1, 30)))
        position = 0
        for statement in split(script):
            position = after_blank(script, position)
            assert script.startswith(statement.text, position)
            assert statement.line == script.count("\n", 0, position) + 1
            position += len(statement.text)
        assert after_blank(script, position) == len(script)


def after_blank(script: str, position: int) -> int:
    """Where something other than blanks, semicolons and whole comments starts."""
    blank = re.compile(r"[\s;]+|--[^\r\n]*")
    while position < len(script):
        if found := blank.match(script, position):
            position = found.end()
        elif end := after_comment(script, position):
            position = end
        else:
            break
    return position


def after_comment(script: str, position: int) -> int | None:
    """Where the whole comment that starts here ends, with those nested in it."""
    depth = 0
    while mark := re.compile(r"/\*|\*/" if depth else r"/\*").match(script, position):
        depth += 1 if mark[0] == "/*" else -1
        position = mark.end()
        if not depth:
            return position
        while position < len(script) and script[position : position + 2] not in {"/*", "*/"}:
            position += 1
    return None


# --------------------------------------------------------------------- reading


def test_str_is_sql() -> None:
    """A str is SQL, whatever else it may look like."""
    assert read_script("SELECT 1") == ("script", "SELECT 1")
    assert read_script("SELECT a.sql")[1] == "SELECT a.sql"


def test_files(tmp_path: Path) -> None:
    """A path is read, compressed or not, its byte order mark left out and its line ends kept."""
    plain, packed = tmp_path / "a.b.sql", tmp_path / "a.sql.gz"
    plain.write_bytes(b"\xef\xbb\xbfSELECT 'caf\xc3\xa9';\r\n")
    packed.write_bytes(gzip.compress(b"SELECT 2;", mtime=0))
    assert read_script(plain) == (str(plain), "SELECT 'café';\r\n")
    assert read_script(packed) == (str(packed), "SELECT 2;")


def test_name_of_a_file() -> None:
    """A str that can only be meant as the name of a file is refused, with the hint to use Path."""
    with pytest.raises(ValidationError, match=r"pathlib\.Path\('sql/schema\.sql'\)"):
        read_script("sql/schema.sql")


@pytest.mark.parametrize("name", ["init.sh", "init", "dump.sql.xz", "data.gz"])
def test_unknown_kind(tmp_path: Path, name: str) -> None:
    """A file of another kind is refused, and what is supported is said."""
    with pytest.raises(ValidationError, match=re.escape(name)) as caught:
        read_script(tmp_path / name)
    assert ".sql.gz" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.sql", None, "does not exist"),
        ("a.sql", b"SELECT\n'caf\xe9'", "not UTF-8: byte 0xe9, line 2"),
        ("a.sql", b"PGDMP\x01", "archive of pg_dump"),
        ("a.sql.gz", b"SELECT 1", "cannot be read"),
        ("a.sql.gz", gzip.compress(b"SELECT 1", mtime=0)[:-9], "cannot be read"),
    ],
)
def test_unreadable(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    """A file that is missing or is no text is refused by name."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValidationError, match=message) as caught:
        read_script(tmp_path / name)
    assert str(tmp_path / name) in caught.value.message


def test_folder(tmp_path: Path) -> None:
    """A folder is no script, even if it is named like one."""
    (tmp_path / "a.sql").mkdir()
    with pytest.raises(ValidationError, match="cannot be read"):
        read_script(tmp_path / "a.sql")


def test_imports_no_driver() -> None:
    """To read scripts, nobody waits for psycopg."""
    code = "import sys, cleanroom_plugin_postgres._scripts; sys.exit('psycopg' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --------------------------------------------------------------------- running


def run(database: Database, script: str) -> None:
    with database.connect(autocommit=True) as connection:
        run_script(connection, script, source="a.sql", service="db")


def fetch(database: Database, query: str) -> list[tuple[object, ...]]:
    with database.connect() as connection:
        return connection.execute(query.encode()).fetchall()


def failure(database: Database, script: str) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        run(database, script)
    assert caught.value.service == "db"
    return caught.value


def test_runs_all(postgres_db: Database) -> None:
    """A script runs to its end: what cannot be in a transaction, transactions, functions, data."""
    run(
        postgres_db,
        r"""
        CREATE TABLE t (id int, note text);
        VACUUM t;
        BEGIN; INSERT INTO t VALUES (1, '100%'), (2, '%s'); COMMIT;
        BEGIN; INSERT INTO t VALUES (3, 'no'); ROLLBACK;
        CREATE FUNCTION a(int) RETURNS text BEGIN ATOMIC
            SELECT CASE $1 WHEN 1 THEN ';' ELSE 'else' END; END;
        CREATE PROCEDURE b() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (4, a(1)); END $$;
        CALL b();
COPY t FROM stdin;
5	tab\tand\nline \\ é
6	\N
\.
COPY t FROM stdin WITH (FORMAT csv);
7,"a ""quoted"", word"
\.
        COPY t TO STDOUT;
        SELECT * FROM t""",
    )
    assert fetch(postgres_db, "SELECT * FROM t ORDER BY id") == [
        (1, "100%"),
        (2, "%s"),
        (4, ";"),
        (5, "tab\tand\nline \\ é"),
        (6, None),
        (7, 'a "quoted", word'),
    ]


def test_first_failure_stops(postgres_db: Database) -> None:
    """What ran before a failure stays, as in psql, and what follows does not run."""
    failure(postgres_db, "CREATE TABLE a (); CREATE TABLE a (); CREATE TABLE b ();")
    names = fetch(postgres_db, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert names == [("a",)]


def test_split_before_it_runs(postgres_db: Database) -> None:
    """A script with a command of psql near its end changes nothing."""
    failure(postgres_db, "CREATE TABLE a ();\n\\i b.sql\n")
    assert fetch(postgres_db, "SELECT to_regclass('a')") == [(None,)]


def test_points_at_the_line(postgres_db: Database) -> None:
    """A failure names script and line where the server points, and shows that line."""
    script = "-- é\r\nSELECT 1;\r\n\r\nSELECT 'é😀',\r\n  missing\r\nFROM (VALUES (1)) v;\r\n"
    error = failure(postgres_db, script)
    assert error.message == 'a.sql, line 5: column "missing" does not exist\n  5 |   missing'
    assert type(error.__cause__).__name__ == "UndefinedColumn"


def test_detail_and_hint(postgres_db: Database) -> None:
    """Without a position it is the statement's line; the server's detail and hint are told."""
    script = "CREATE TABLE a (id int PRIMARY KEY);\nINSERT INTO a VALUES (1);\n"
    error = failure(postgres_db, f"{script}INSERT INTO a\nVALUES (1);")
    assert error.message.startswith("a.sql, line 3: duplicate key value")
    assert "3 | INSERT INTO a\n  detail: Key (id)=(1) already exists." in error.message
    assert "cast" in str(failure(postgres_db, "SELECT 1 = 'a'::text").hint)


def test_line_of_data(postgres_db: Database) -> None:
    """A failure within the data of a COPY names the line of the data."""
    script = "CREATE TABLE a (id int);\nCOPY a (id)\nFROM stdin;\n1\nx\n\\.\n"
    assert failure(postgres_db, script).message.startswith(
        'a.sql, line 5: invalid input syntax for type integer: "x"\n  5 | x'
    )
    assert "line 1: relation" in failure(postgres_db, "COPY b FROM stdin;\n1\n\\.\n").message


def test_line_of_a_block(postgres_db: Database) -> None:
    """A failure within a DO block names the line in the block."""
    script = "SELECT 1;\nDO\n$$\nBEGIN\n  PERFORM 1;\n  RAISE 'no' USING HINT = 'yes';\nEND $$;\n"
    error = failure(postgres_db, script)
    assert error.message.startswith("a.sql, line 6: no\n  6 |   RAISE 'no'")
    assert error.hint == "yes"


def test_long_line(postgres_db: Database) -> None:
    """Of a long line only the part around the place is shown."""
    values = ", ".join(str(number) for number in range(1000))
    excerpt = failure(postgres_db, f"SELECT {values}, missing, {values}").message.splitlines()[1]
    assert "missing" in excerpt
    assert len(excerpt) < 220


def test_no_passwords(postgres_db: Database) -> None:
    """The line that is shown has no passwords, neither of roles nor in URLs."""
    script = "SELECT 'postgres://u:hunter2@h/d', missing; -- PASSWORD 'hunter3' password E'hunter4"
    message = str(failure(postgres_db, script))
    assert "missing" in message
    assert "hunter" not in message


def test_open_transaction(postgres_db: Database) -> None:
    """A script that ends inside a transaction is a failure, and the transaction is rolled back."""
    with postgres_db.connect(autocommit=True) as connection:
        with pytest.raises(ServiceError, match=r"a\.sql ends inside .* begun on line 2"):
            run_script(connection, "\nBEGIN; CREATE TABLE a ();\n", source="a.sql", service="db")
        with pytest.raises(ServiceError, match="line 1: division by zero"):
            run_script(connection, "BEGIN; SELECT 1/0; COMMIT", source="a.sql", service="db")
        assert connection.execute("SELECT to_regclass('a')").fetchone() == (None,)


def test_lost_connection(postgres_db: Database) -> None:
    """A connection that breaks is a failure of the statement that was running."""
    error = failure(postgres_db, "SELECT 1;\nSELECT pg_terminate_backend(pg_backend_pid());")
    assert error.message.startswith("a.sql, line 2: ")


def test_needs_autocommit(postgres_db: Database) -> None:
    """A connection that opens transactions by itself would change what scripts mean."""
    with postgres_db.connect() as connection, pytest.raises(InternalError, match="autocommit"):
        run_script(connection, "SELECT 1", source="a.sql", service="db")


@contextmanager
def another(database: Database, options: str = "") -> Iterator[Database]:
    """One more database on the server, for the duration of the context."""
    name = f"{database.name}_another"  # other workers use the same server
    with database.connect(autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 {options}".encode())
        made = Database(with_database(database.handle, name))
        try:
            yield made
        finally:
            made.close()
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_no_encoding(postgres_db: Database) -> None:
    """Text arrives whole, and lines are right, in a database without an encoding."""
    with another(postgres_db, "ENCODING 'SQL_ASCII' LOCALE 'C'") as database:
        run(database, "CREATE TABLE a AS SELECT 'é'::text AS x;")
        assert fetch(database, "SELECT octet_length(x) FROM a") == [(2,)]
        error = failure(database, "SELECT 'ééééé',\nmissing,\n1,\n2,\n3")
        assert error.message.startswith("a.sql, line 2: ")
        assert error.message.endswith("\n  2 | missing,")


DUMPED = r"""
CREATE SCHEMA "odd; schema";
CREATE TYPE mood AS ENUM ('so;so', 'it''s', 'back\slash');
CREATE TABLE "odd; schema"."T ""1"" t" (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    note text DEFAULT E'a\tb;\\' CHECK (note <> ';'),
    mood mood, raw bytea, tags text[], doc jsonb, price numeric(8, 2)
);
COMMENT ON TABLE "odd; schema"."T ""1"" t" IS 'one; '' -- two /* three';
INSERT INTO "odd; schema"."T ""1"" t" (note, mood, raw, tags, doc, price)
    VALUES (E'tab\t line\n return\r back\\slash', 'it''s', '\x00ff', '{"a;b","\"",NULL}',
        '{"k": ";\n"}', 1),
    (NULL, NULL, NULL, NULL, NULL, NULL), (E'\\.', 'so;so', '', '{}', '"\\"', 2.5),
    (E'\\N', 'back\slash', NULL, NULL, '[]', NULL), ('', NULL, NULL, NULL, 'null', 0),
    ('é 😀 $$ '' " \restrict', NULL, NULL, NULL, NULL, NULL);
CREATE TABLE empty (id int, part text) PARTITION BY LIST (part);
CREATE TABLE empty_a PARTITION OF empty FOR VALUES IN ('a;', 'b');
CREATE FUNCTION atomic_body(n int) RETURNS text LANGUAGE sql BEGIN ATOMIC
    SELECT 1 AS "end"; SELECT CASE n WHEN 1 THEN CASE WHEN true THEN ';' END ELSE 'END' END; END;
CREATE PROCEDURE dollars() LANGUAGE plpgsql AS $outer$
BEGIN EXECUTE $$ SELECT ';' $$; RAISE NOTICE '%; $_$', E'\''; END $outer$;
CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.note := coalesce(NEW.note, '') || ';'; RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE UPDATE ON "odd; schema"."T ""1"" t" FOR EACH ROW
    WHEN (OLD.note IS DISTINCT FROM ';') EXECUTE FUNCTION touched();
CREATE VIEW v AS SELECT CASE WHEN id > 1 THEN ';' ELSE E'\\' END AS "end", note
    FROM "odd; schema"."T ""1"" t";
CREATE RULE both_ AS ON INSERT TO v DO INSTEAD (SELECT 1; INSERT INTO empty VALUES (1, 'a;'));
CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM v;
CREATE INDEX i ON "odd; schema"."T ""1"" t" (lower(note)) WHERE note <> ';';
"""


def dump(database: Database, *options: str) -> str:
    """What pg_dump says, but for the key that is another one in each dump."""
    program = pg_dump(database)
    command = [program, *options, database.url]
    answer = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    return re.sub(r"(?m)^(\\(?:un)?restrict) \S+$", r"\1 key", answer)


def pg_dump(database: Database) -> Path:
    """A pg_dump that is not older than the server."""
    needed = int(database.handle.require("version").split(".")[0])
    for server in local_servers():
        program = server.executable.parent / "pg_dump"
        if int(server.version.split(".")[0]) >= needed and program.exists():
            return program
    pytest.skip(f"there is no pg_dump {needed} or later")


@pytest.mark.parametrize(
    "options", [(), ("--inserts",), ("--clean", "--if-exists", "--rows-per-insert=3")]
)
def test_dump(postgres_db: Database, options: tuple[str, ...]) -> None:
    """A dump that a script restores is, dumped again, the same to the letter."""
    run(postgres_db, DUMPED)
    first = dump(postgres_db, *options)
    assert "back\\\\slash" in first if not options else "INSERT INTO" in first
    with another(postgres_db) as database:
        run(database, first)
        assert dump(database, *options) == first
