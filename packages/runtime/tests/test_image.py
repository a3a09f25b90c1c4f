import pytest

from cleanroom import ValidationError
from cleanroom_runtime._image import ImageReference, parse_image

DIGEST = "sha256:" + "a1" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres", ImageReference(None, "library/postgres", None, None)),
        ("postgres:15-alpine", ImageReference(None, "library/postgres", "15-alpine", None)),
        ("postgis/postgis:15-3.4", ImageReference(None, "postgis/postgis", "15-3.4", None)),
        (f"redis@{DIGEST}", ImageReference(None, "library/redis", None, DIGEST)),
        (f"redis:7@{DIGEST}", ImageReference(None, "library/redis", "7", DIGEST)),
        ("localhost/api", ImageReference("localhost", "api", None, None)),
        ("localhost:5000/a/b__c/d-e", ImageReference("localhost:5000", "a/b__c/d-e", None, None)),
        ("registry.example/db:1", ImageReference("registry.example", "db", "1", None)),
        ("[2001:db8::1]:5000/db:1", ImageReference("[2001:db8::1]:5000", "db", "1", None)),
        ("INTRANET/db:1", ImageReference("INTRANET", "db", "1", None)),
    ],
)
def test_reference_is_taken_apart(text: str, expected: ImageReference) -> None:
    """A reference is taken apart the way the engine does it."""
    assert parse_image(text) == expected


@pytest.mark.parametrize(
    ("text", "official"),
    [
        ("postgres", True),
        ("postgres:15", True),
        ("library/postgres:15", True),
        ("docker.io/postgres", True),
        ("docker.io/library/postgres:15", True),
        ("index.docker.io/library/postgres", True),
        ("postgis/postgis:15", False),
        ("someone/postgres:15", False),
        ("registry.example/postgres:15", False),
        ("registry.example/library/postgres:15", False),
        ("redis:7", False),
    ],
)
def test_official_image_has_several_names(text: str, official: bool) -> None:
    """The official image is known by each of its names, and no other image is taken for it."""
    assert parse_image(text).official("postgres") is official


@pytest.mark.parametrize(
    ("text", "major"),
    [
        ("postgres:15", "15"),
        ("postgres:15.3", "15"),
        ("postgres:15-alpine", "15"),
        ("postgres:18beta1", "18"),
        ("postgres", None),
        ("postgres:latest", None),
        ("postgres:alpine3.20", None),
        ("postgres:v15", None),
        (f"postgres@{DIGEST}", None),
    ],
)
def test_tag_promises_a_major_version(text: str, major: str | None) -> None:
    """The major version is the number a tag begins with; `latest` promises none."""
    assert parse_image(text).major == major


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no name"),
        (":15", "no name"),
        ("@" + DIGEST, "no name"),
        ("Postgres:15", "upper-case letters"),
        ("post gres", "malformed name 'post gres'"),
        ("postgres:", "malformed tag ''"),
        ("postgres:-15", "malformed tag '-15'"),
        ("postgres:" + "1" * 129, "malformed tag"),
        ("postgres:15:16", "malformed name 'postgres:15'"),
        ("postgres@", "malformed digest ''"),
        ("postgres@sha256:beef", "malformed digest 'sha256:beef'"),
        ("team//db", "malformed name 'team//db'"),
        ("team/db/", "malformed name 'team/db/'"),
        ("team/-db", "malformed name 'team/-db'"),
        ("-x.example/db", "malformed registry '-x.example'"),
        ("x.example:port/db", "malformed registry 'x.example:port'"),
        ("postgres\n", "malformed name"),
        ("postgres:15\n", "malformed tag"),
        ("a" * 256, "longer than 255"),
        ("a1" * 32, "id, not its name"),
    ],
)
def test_malformed_reference_is_refused(text: str, problem: str) -> None:
    """A malformed reference is refused by an error with the argument, the value and the reason."""
    with pytest.raises(ValidationError) as caught:
        parse_image(text, "db_image")
    assert caught.value.message.startswith(f"db_image={text!r} ")
    assert problem in caught.value.message
