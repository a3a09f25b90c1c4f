"""Builds the stand-in images: `python -m tests.images`.

One root file system of Debian packages is made with debootstrap and imported as the base image;
each stand-in adds the files of its folder. What is there from the same recipe is left alone.
debootstrap needs root; the mirror is the one that this machine's apt uses. Wheels come from
wherever this machine's pip looks.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
from docker.errors import BuildError, DockerException, ImageNotFound

from tests.images import IMAGES, Image

# The Debian release whose packages have the versions that the stand-ins are named for.
RELEASE = "bookworm"
PYTHON_OF_RELEASE = "3.11"
# Wanted by dependencies on that very Python, 3.11.2, while pip asks the one it runs in.
WHEELS_OF_RELEASE = ("async-timeout>=4.0.3",)
BASE = f"cleanroom-test/base:{RELEASE}"
BASE_PACKAGES = ("ca-certificates", *(package for image in IMAGES for package in image.packages))
# What a running service does not read, and the cluster that Debian's package makes for itself.
UNWANTED = (
    "etc/postgresql/*",
    "usr/share/doc/*",
    "usr/share/info/*",
    "usr/share/locale/*",
    "usr/share/man/*",
    "var/cache/apt/*",
    "var/lib/apt/lists/*",
    "var/lib/postgresql/*",
    "var/log/postgresql/*",
)
# What running a project leaves in its folder, and no image is made from.
CACHES = {"__pycache__", ".pytest_cache"}
# Containers inherit it, so it is none of the labels that mark a run's containers.
LABEL = "test-image.recipe"
MIRROR_VARIABLE = "CLEANROOM_TEST_MIRROR"

Build = Callable[[docker.DockerClient, str, str], None]


def main() -> int:
    """Build what is missing; say what was done and how long it took."""
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except DockerException as error:
        return fail(f"no container engine answers: {error}")
    try:
        base_recipe = recipe(RELEASE, BASE_PACKAGES, UNWANTED)
        build_if_changed(client, BASE, base_recipe, build_base)
        recipes = {BASE: base_recipe}
        for image in IMAGES:
            made_of = (recipes[image.base], folder(image), requirements(image))
            recipes[image.stand_in] = wanted = recipe(*made_of)
            build_if_changed(client, image.stand_in, wanted, build_stand_in(image))
    except (BuildError, RuntimeError) as error:
        return fail(str(error))
    finally:
        client.close()
    return 0


def fail(reason: str) -> int:
    print(f"tests.images: {reason}", file=sys.stderr)
    return 1


def build_if_changed(client: docker.DockerClient, name: str, wanted: str, build: Build) -> None:
    try:
        present = client.images.get(name).labels.get(LABEL)
    except ImageNotFound:
        present = None
    if present == wanted:
        print(f"{name}: already built")
        return
    began = time.monotonic()
    build(client, name, wanted)
    print(f"{name}: built in {time.monotonic() - began:.0f} s")


def build_base(client: docker.DockerClient, name: str, wanted: str) -> None:
    with tempfile.TemporaryDirectory(prefix="cleanroom-images-") as temporary:
        root = Path(temporary, "root")
        debootstrap(root)
        for pattern in UNWANTED:
            for path in root.glob(pattern):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        repository, tag = name.split(":")
        client.api.import_image_from_stream(
            archive(root), repository=repository, tag=tag, changes=[f"LABEL {LABEL}={wanted}"]
        )


def build_stand_in(image: Image) -> Build:
    def build(client: docker.DockerClient, name: str, wanted: str) -> None:
        with tempfile.TemporaryDirectory(prefix="cleanroom-images-") as temporary:
            context = Path(temporary, "context")
            shutil.copytree(folder(image), context)
            if image.wheels_for is not None:
                download_wheels(requirements(image), context / "wheels")
            client.images.build(
                path=str(context),
                tag=name,
                buildargs={"BASE": image.base},
                labels={LABEL: wanted},
                rm=True,
                forcerm=True,
            )

    return build


def folder(image: Image) -> Path:
    return image.folder or Path(__file__).parent / image.service


def requirements(image: Image) -> list[str]:
    """Return what it takes to install the project that the image brings wheels for."""
    if image.wheels_for is None:
        return []
    project = tomllib.loads((image.wheels_for / "pyproject.toml").read_text())
    named = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    return [*named, *WHEELS_OF_RELEASE]


def download_wheels(wanted: list[str], target: Path) -> None:
    """Download wheels that fit the release, whatever Python runs here."""
    machine = platform.machine()
    tags = [f"manylinux_2_28_{machine}", f"manylinux2014_{machine}"]
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(target)),
            *("--only-binary=:all:", "--python-version", PYTHON_OF_RELEASE),
            *(f"--platform={tag}" for tag in tags),
            *wanted,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise RuntimeError(f"pip could not download wheels:\n{result.stdout}")


def recipe(*ingredients: object) -> str:
    """Return a digest of what an image is made from: names and, of a folder, its files."""
    digest = hashlib.sha256()
    for ingredient in ingredients:
        if isinstance(ingredient, Path):
            for path in sorted(ingredient.rglob("*")):
                if path.is_dir() or not CACHES.isdisjoint(path.parts):
                    continue
                digest.update(f"{path.relative_to(ingredient)} {path.stat().st_mode}".encode())
                digest.update(path.read_bytes())
        else:
            digest.update(repr(ingredient).encode())
    return digest.hexdigest()[:16]


def debootstrap(root: Path) -> None:
    if os.geteuid() != 0:
        raise RuntimeError("debootstrap needs root to make the base image")
    if shutil.which("debootstrap") is None:
        raise RuntimeError("debootstrap is not installed: apt-get install debootstrap")
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}"]
    try:
        result = subprocess.run(
            [*command, RELEASE, str(root), mirror()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            check=False,
        )
    finally:
        unmount_below(root)
    if result.returncode != 0:
        tail = "\n".join(result.stdout.splitlines()[-20:])
        raise RuntimeError(f"debootstrap failed with exit code {result.returncode}:\n{tail}")


def mirror() -> str:
    """Return the address of the Debian mirror that this machine's apt is set up with."""
    if named := os.environ.get(MIRROR_VARIABLE):
        return named
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(SITE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    sites = [
        site
        for origin, _, site in (line.partition(" ") for line in targets.splitlines())
        if origin == "Debian" and not site.rstrip("/").endswith("-security")
    ]
    if not sites:
        raise RuntimeError(
            f"apt knows no Debian mirror; run apt-get update, or name one in {MIRROR_VARIABLE}"
        )
    return sites[0]


def unmount_below(root: Path) -> None:
    """Unmount what an interrupted debootstrap leaves mounted."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for target in sorted((path for path in mounted if path.startswith(f"{root}/")), reverse=True):
        subprocess.run(["umount", target], check=False)


def archive(root: Path) -> Iterator[bytes]:
    with subprocess.Popen(
        ["tar", "--numeric-owner", "--create", "--directory", str(root), "."],
        stdout=subprocess.PIPE,
    ) as tar:
        assert tar.stdout is not None
        while chunk := tar.stdout.read(1 << 20):
            yield chunk
    if tar.returncode != 0:
        raise RuntimeError(f"tar failed with exit code {tar.returncode}")


if __name__ == "__main__":
    sys.exit(main())
