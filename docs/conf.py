"""How the documentation is built: `hatch run docs:build`."""

from importlib import import_module

project = "Cleanroom"
author = "The Cleanroom authors"
copyright = "the Cleanroom authors"  # noqa: A001 - Sphinx calls it so
html_title = "Cleanroom"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_theme_options = {"navigation_with_keys": True}

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

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

# What a package offers is documented, and referred to, as the package's own; packages that import
# their parts when they are first used do it now.
for _name in _PACKAGES:
    _package = import_module(_name)
    for _member in _package.__all__:
        _object = getattr(_package, _member)
        setattr(_package, _member, _object)
        if str(getattr(_object, "__module__", "")).startswith(f"{_name}._"):
            _object.__module__ = _name
