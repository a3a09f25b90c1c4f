"""What holds for the workspace as a whole and for every package in it."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))

each_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)


def read(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text())


def import_folder(package: Path) -> Path:
    (folder,) = (path.parent for path in package.glob("src/*/__init__.py"))
    return folder


def version(package: Path) -> str:
    path = package / read(package)["tool"]["hatch"]["version"]["path"]
    (found,) = re.findall(r'^__version__ = "(.+)"$', path.read_text(), re.MULTILINE)
    return found


def requirements(package: Path) -> list[Requirement]:
    project = read(package)["project"]
    extras = project.get("optional-dependencies", {}).values()
    return [
        Requirement(line) for lines in (project.get("dependencies", []), *extras) for line in lines
    ]


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode != 0:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in listing.stdout.decode().split("\0") if name]


def test_the_root_is_a_workspace_and_no_project():
    root = read(ROOT)
    assert "project" not in root
    assert "build-system" not in root
    environments = root["tool"]["hatch"]["envs"]
    assert {"default", "hatch-test"} <= environments.keys()
    for name, environment in environments.items():
        if "workspace" in environment or name in {"default", "hatch-test"}:
            assert environment["skip-install"] is True, name
            assert environment["workspace"]["members"][0]["path"] == "packages/*", name


def test_every_folder_of_packages_is_a_package():
    folders = [path for path in ROOT.glob("packages/*") if any(path.rglob("*.py"))]
    assert sorted(folders) == PACKAGES


@each_package
@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "LICENSE"])
def test_a_package_has_what_its_users_read(package, name):
    assert (package / name).read_text().strip()


@each_package
def test_a_package_is_named_for_its_folder(package):
    project = read(package)["project"]
    assert project["name"] == f"cleanroom-{package.name}"
    assert project["license"].split(" AND ")[0] == "MIT"


@each_package
def test_a_package_says_that_it_is_typed(package):
    assert (import_folder(package) / "py.typed").is_file()
    assert "Typing :: Typed" in read(package)["project"]["classifiers"]


@each_package
def test_a_version_is_a_literal_that_the_changelog_knows(package):
    assert read(package)["project"]["dynamic"] == ["version"]
    found = version(package)
    assert str(Version(found)) == found
    assert f"\n## {found} " in (package / "CHANGELOG.md").read_text()


@each_package
def test_a_package_takes_the_pythons_that_are_tested(package):
    project = read(package)["project"]
    assert project["requires-python"] == ">=3.11"
    (matrix,) = read(ROOT)["tool"]["hatch"]["envs"]["hatch-test"]["matrix"]
    prefix = "Programming Language :: Python :: 3."
    claimed = [
        line[len(prefix) - 2 :] for line in project["classifiers"] if line.startswith(prefix)
    ]
    assert claimed == matrix["python"]


@each_package
def test_a_package_of_ours_is_required_by_its_minor_version(package):
    versions = {read(path)["project"]["name"]: Version(version(path)) for path in PACKAGES}
    for requirement in requirements(package):
        if requirement.name not in versions or requirement.extras:
            continue
        ours = versions[requirement.name]
        below = f"{ours.major}.{ours.minor + 1}"
        if requirement.name.endswith("-server"):  # its version is that of what is in it
            below = f"{ours.major + 1}"
        expected = SpecifierSet(f">={ours.major}.{ours.minor},<{below}")
        assert requirement.specifier == expected, requirement


@each_package
def test_what_others_make_is_required_from_a_version_on(package):
    for requirement in requirements(package):
        if not requirement.name.startswith("cleanroom-"):
            assert {part.operator for part in requirement.specifier} == {">="}, requirement


@each_package
def test_the_tools_are_set_up_in_the_root_alone(package):
    assert read(package)["tool"].keys() == {"hatch"}


@each_package
def test_tests_of_packages_are_no_packages(package):
    """Two packages named `tests` would hide one another."""
    assert not (package / "tests" / "__init__.py").exists()


@each_package
def test_every_entry_point_is_in_its_own_package(package):
    project = read(package)["project"]
    for group in project.get("entry-points", {}).values():
        for target in group.values():
            module = target.partition(":")[0]
            assert module.partition(".")[0] == import_folder(package).name
            path = package / "src" / Path(*module.split("."))
            assert path.is_dir() or path.with_suffix(".py").is_file(), target


def test_pytest_is_entered_once():
    entries = [
        read(package)["project"].get("entry-points", {}).get("pytest11") for package in PACKAGES
    ]
    assert [entry for entry in entries if entry] == [
        {"cleanroom": "cleanroom_runtime.pytest_plugin"}
    ]


def test_coverage_measures_every_package():
    measured = read(ROOT)["tool"]["coverage"]["run"]["source_pkgs"]
    assert sorted(measured) == sorted(import_folder(package).name for package in PACKAGES)


def test_the_changelog_and_the_readme_name_every_package():
    for name in ("CHANGELOG.md", "README.md"):
        text = (ROOT / name).read_text()
        for package in PACKAGES:
            assert f"packages/{package.name}" in text, (name, package.name)


def test_no_file_names_a_package_mirror():
    """What is installed comes from wherever the machine at hand is set up to look."""
    option = re.compile(
        r"(index|extra-index|find-links|mirror|registry)[-_]?(url|site)?\s*[=: ]\s*[\"']?\w+://",
        re.I,
    )
    address = re.compile(r"\w+://[^\s\"'<>]*/(simple|debian)/?(?=[\s\"'<>)]|$)")
    for path in tracked_files():
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        for pattern in (option, address):
            found = pattern.search(text)
            assert found is None, f"{path.relative_to(ROOT)}: {found[0] if found else ''}"
