"""The one place that says which container images the tests use.

Each image has a stand-in that is built here from Debian's packages, so that no registry is needed,
and an environment variable that names another image to use in its place, such as the official one:

    CLEANROOM_TEST_POSTGRES_IMAGE=postgres:15-alpine

`python -m tests.images` builds the stand-ins. Tests take an image from a fixture in `conftest.py`
and never name one themselves.
"""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Image:
    """An image that tests run: a stand-in of ours, or what the environment names instead."""

    service: str
    stand_in: str
    packages: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable that names another image."""
        return f"CLEANROOM_TEST_{self.service.upper()}_IMAGE"

    @property
    def name(self) -> str:
        """The image to run."""
        return os.environ.get(self.variable) or self.stand_in

    @property
    def is_stand_in(self) -> bool:
        """Whether the image is one that `python -m tests.images` builds."""
        return self.name == self.stand_in


POSTGRES = Image("postgres", "cleanroom-test/postgres:15", packages=("postgresql-15",))
REDIS = Image("redis", "cleanroom-test/redis:7", packages=("redis-server",))
HTTP = Image("http", "cleanroom-test/http:1", packages=("python3-minimal",))

IMAGES = (POSTGRES, REDIS, HTTP)
