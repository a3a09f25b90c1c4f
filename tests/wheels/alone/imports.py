"""Imports every module of an installed distribution: those for pytest alone may miss pytest."""

import sys
from importlib import import_module
from importlib.metadata import files

name = sys.argv[1]
paths = [path for path in files(name) or () if path.suffix == ".py" and path.name != "__main__.py"]
modules = {
    ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    for path in paths
    if all(part.removesuffix(".py").isidentifier() for part in path.parts)
    and "_template" not in path.parts[:-1]
}
assert modules
for module in sorted(modules):
    try:
        import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name != "pytest":
            raise
