"""The gallery: cells from their equations, a file each, which is called as its cell is.

`lstms` have a memory beside h, `grus` have h alone; of `scans` no unit sees another one but through the input.
"""

from importlib import import_module
from pkgutil import iter_modules


def names():
    """Return the names of all cells, sorted."""
    return tuple(sorted(_modules()))


def find(name):
    """Return a cell by its name; a ValueError if there is none."""
    modules = _modules()
    if name not in modules:
        raise ValueError(f"cell: expected one of {', '.join(sorted(modules))}, got {name}")
    return getattr(import_module(modules[name]), name)


def _modules():
    """Return the module of each cell, by its name."""
    rooms = [import_module(f"{__name__}.{room.name}") for room in iter_modules(__path__) if room.ispkg]
    return {file.name: f"{room.__name__}.{file.name}" for room in rooms for file in iter_modules(room.__path__)}
