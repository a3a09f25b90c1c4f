"""The one place that says which container images the tests use.

Each image has a stand-in that is built here from Debian's packages, so that no registry is needed,
and an environment variable that names another image to use in its place, such as the official one:

    CLEANROOM_TEST_POSTGRES_IMAGE=postgres:15-alpine

`python -m tests.images` builds the stand-ins. Tests take an image from a fixture in `conftest.py`
and never name one themselves.
"""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Image:
    """An image that tests run: a stand-in of ours, or what the environment names instead.

    Attributes:
        service: What runs in it.
        stand_in: Name of the image that is built here.
        packages: What it takes of Debian's.
        base: The stand-in it is built upon; by default the one that has all packages.
        folder: Its Dockerfile's; by default the one here that is named for the service.
        wheels_for: A project's folder: the stand-in brings the wheels that it takes to install it.
    """

    service: str
    stand_in: str
    packages: tuple[str, ...] = ()
    base: str = "cleanroom-test/base:bookworm"
    folder: Path | None = None
    wheels_for: Path | None = None

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
MEMCACHED = Image("memcached", "cleanroom-test/memcached:1", packages=("memcached",))
NGINX = Image("nginx", "cleanroom-test/nginx:1", packages=("nginx-light",))
HTTP = Image("http", "cleanroom-test/http:1", packages=("python3-minimal",))

_SHOP = Path(__file__).parents[2] / "examples" / "shop"
PYTHON = Image("python", "cleanroom-test/python:3", packages=("python3-pip",), wheels_for=_SHOP)
SHOP = Image("shop", "cleanroom-test/shop:1", base=PYTHON.stand_in, folder=_SHOP)

IMAGES = (POSTGRES, REDIS, MEMCACHED, NGINX, HTTP, PYTHON, SHOP)
