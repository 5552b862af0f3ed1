"""`compiled`: Numba's `njit`, with its results kept on disk for the next process.

Numba's own cache looks at the file of the function alone, not at the files that it imports. Here each state of all
sources in the function's folder and below has a folder of its own, since that is where what it calls comes from; Numba
adds the CPU, its features and its own version to the key. The folders lie in NUMBA_CACHE_DIR, else in XDG_CACHE_HOME
(~/.cache), and may be deleted at any time.
"""

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Any

from numba import config, njit


def base_folder():
    """Return the folder of everything that is kept from one process to the next."""
    return Path(config.CACHE_DIR or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "unrolled"))


def _folder(function):
    return str(base_folder() / _digest(Path(function.__code__.co_filename).parent)[:16])


@cache
def _digest(folder):
    digest = hashlib.sha256()
    for source in sorted(folder.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def compiled(function, **options):
    """Compile `function` on its first call, keep the result on disk, and let other threads run beside it."""
    dispatcher = njit(function, nogil=True, **options)
    users_folder = config.CACHE_DIR
    config.CACHE_DIR = _folder(function)  # read when caching is enabled, and the user's own again after
    try:
        dispatcher.enable_caching()
    finally:
        config.CACHE_DIR = users_folder
    return dispatcher


def named(name):
    """Name a function that is one of several made by another function.

    Numba tells functions of one name and the same types apart by a number that every process counts anew. So where two
    processes fill one cache, the linker takes one such function for another (numba issue 10486): wrong results, and
    in every process from then on.
    """

    def rename(function):
        function.__qualname__ = name
        return function

    return rename


INLINE: Any = {"forceinline": True}  # an overload's `jit_options`: a call would move every vector through memory


def inlined(function):
    """Compile `function` into each of its callers."""
    return compiled(function, **INLINE)
