"""How the documentation is built: `hatch run docs:build`."""

import sys
from collections import namedtuple
from importlib import import_module

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

project = "Cleanroom"
author = "The Cleanroom authors"
copyright = "the Cleanroom authors"  # noqa: A001 - Sphinx calls it so
html_title = "Cleanroom"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
# The theme's own choice for dark pages underlines what is imported, as if it were a link.
pygments_dark_style = "a11y-dark"

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

napoleon_numpy_docstring = False
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
# Docstrings are written with Markdown's backticks.
default_role = "literal"

nitpicky = True
# Other projects' pages are not looked up; of ours, what is public has an entry.
nitpick_ignore_regex = [
    ("py:.*", r"(?!cleanroom).*"),
    ("py:.*", r"cleanroom\w*(\.\w+)*\._.*"),
]

_PACKAGES = (
    "cleanroom",
    "cleanroom.testing",
    "cleanroom_runtime",
    "cleanroom_plugin_postgres",
    "cleanroom_plugin_redis",
    "cleanroom_plugin_http",
)

_FIELD = type(namedtuple("_OneField", "field").field)

_NOT_FOR_USERS = {("Template", "drafts")}
"""Attributes that are public only among the modules of a package."""

# What a package offers is documented, and referred to, as the package's own; packages that import
# their parts when they are first used do it now. What stands below an assignment to say what it is
# for, is looked for in the source of the package, and found in that of its parts.
for _name in _PACKAGES:
    _package = import_module(_name)
    for _member in _package.__all__:
        _object = getattr(_package, _member)
        setattr(_package, _member, _object)
        if str(getattr(_object, "__module__", "")).startswith(f"{_name}._"):
            _object.__module__ = _name
    _analyzer = ModuleAnalyzer.for_module(_name)
    _analyzer.analyze()
    for _part in [part for part in sys.modules if part.startswith(f"{_name}._")]:
        _source = ModuleAnalyzer.for_module(_part)
        for (_namespace, _attribute), _lines in _source.find_attr_docs().items():
            _offered = (_namespace or _attribute).partition(".")[0] in _package.__all__
            if _offered and (_namespace, _attribute) not in _NOT_FOR_USERS:
                _analyzer.attr_docs[_namespace, _attribute] = _lines


def setup(app: Sphinx) -> None:
    """Look after what extensions do to docstrings."""
    app.connect("autodoc-process-docstring", _keep_the_first_line, priority=400)
    app.connect("autodoc-skip-member", _skip_fields_of_tuples)
    app.connect("env-check-consistency", _warn_of_missing_attributes)


def _skip_fields_of_tuples(
    app: Sphinx, what: str, name: str, member: object, skip: bool, options: object
) -> bool | None:
    """Leave out what the docstring of a named tuple says of its fields already."""
    return True if isinstance(member, _FIELD) else None


def _keep_the_first_line(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Say of an attribute that no type stands before its colon, where Napoleon looks for one."""
    if what in {"attribute", "data", "property"} and lines:
        lines[0] = f": {lines[0]}"


def _warn_of_missing_attributes(app: Sphinx, env: BuildEnvironment) -> None:
    """Let the build fail where an attribute has a docstring and no entry."""
    entries = {name for name, *_ in env.domains["py"].get_objects()}
    for package in _PACKAGES:
        for namespace, attribute in ModuleAnalyzer.for_module(package).attr_docs:
            owner = f"{package}.{namespace}".rstrip(".")
            private = any(part.startswith("_") for part in (*namespace.split("."), attribute))
            if f"{owner}.{attribute}" not in entries and not private:
                logging.getLogger(__name__).warning("%s.%s has no entry", owner, attribute)
