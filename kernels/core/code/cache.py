"""`compiled`: a function in compiled code, which is kept on disk for the next process; `kept`, for Numba's own `njit`.

Numba's own cache looks at the file of the function alone, not at the files that it imports. Here each state of all
sources in the function's package has a folder of its own, since that is where what it calls comes from, be it by an
overload for a cell's type. Where an application comes without sources, that goes by its byte code, or by the one file
in which it is packed. Numba adds the CPU, its features and its own version to the key. The folders lie in
NUMBA_CACHE_DIR, else in XDG_CACHE_HOME (~/.cache), else in a folder of the user's in TMPDIR, and may be deleted at any
time. Where none can be written, code is compiled for this process alone, and a warning says so once.
"""

import glob
import hashlib
import os
import pickle
import stat
import sys
import tempfile
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from numba import __version__, config, types
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator
from numba.core.serialize import dumps

from kernels.core.code.compiler import Dispatcher, Part, Parts
from kernels.core.code.host import MATRICES

_CHECKSUM = 32  # bytes


def base_folder(*below):
    """Return the folder of everything that is kept from one process to the next, or one below it, made if need be.

    Raises an OSError if none can be written.
    """
    failure = OSError("no folder is known")
    for place in _places():
        folder = place.joinpath(*below)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            failure = error
        else:
            return folder
    raise failure


def _places():
    """Yield the folders that may keep something, the best first: the user's choice is the only one."""
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR).absolute()
        return
    if os.path.isabs(home := os.environ.get("XDG_CACHE_HOME", "")):
        yield Path(home, "unrolled")
    with suppress(RuntimeError):  # a user without a home
        yield Path.home() / ".cache" / "unrolled"
    with suppress(OSError):
        yield _private(Path(tempfile.gettempdir(), f"unrolled-{os.getuid()}"))


def _private(folder):
    """Return a folder that others share the parent of, made if need be: what it holds is run, so none else may write.

    Raises an OSError if it is somebody else's, or open to others.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise PermissionError(f"{folder} is not this user's alone")
    return folder


@cache
def _folder(sources):
    """Return the folder of what is compiled from a folder of sources as they are now, or None if it cannot be kept."""
    try:
        return base_folder(_digest(sources)[:16])
    except OSError as error:
        if config.CACHE_DIR:
            found = f"expected a folder that can be written, got {config.CACHE_DIR!r} ({error.strerror})"
            raise ImportError(f"NUMBA_CACHE_DIR: {found}") from None
        _warn(error)
        return None


def _digest(folder):
    place, files = folder, _files_with_suffix(folder, ".py") or _files_with_suffix(folder, ".pyc")
    if not files:
        place = next((path for path in folder.parents if path.is_file()), Path(sys.executable))
        files = [place]
    # Of two versions of Numba each would throw away what the other keeps in its place.
    digest = hashlib.sha256(os.fsencode(place) + bytes([MATRICES]) + __version__.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _files_with_suffix(folder, suffix):
    found = [path for path in folder.rglob(f"*{suffix}") if path.is_file() and path.parent.name != "__pycache__"]
    return sorted(found)


_not_kept: list[OSError] = []  # why, once it has been said


def _warn(error):
    if not _not_kept:
        _not_kept.append(error)
        why = error.strerror or error
        text = f"Compiled code cannot be kept for the next process ({why}): NUMBA_CACHE_DIR can name a folder"
        warnings.warn(text, RuntimeWarning, stacklevel=2)


class _Locator(UserProvidedCacheLocator):
    """Keeps a function's code in our folder, and never where Numba would, beside the source: see above."""

    def __init__(self, function):
        self._py_file, self._lineno = function.__code__.co_filename, function.__code__.co_firstlineno
        self._cache_path = str(_folder(_sources(function)))

    def get_source_stamp(self):
        """Return nothing: the folder is that of the sources as they are."""


class _Files(CompileResultCacheImpl):
    """Names a function's files there."""

    def __init__(self, function):
        self._locator, self._lineno = _Locator(function), function.__code__.co_firstlineno
        name = f"{Path(function.__code__.co_filename).stem}.{function.__qualname__}"
        self._filename_base = self.get_filename_base(name, sys.abiflags)


class _Entries:
    """What is kept of a function: a file for each key, which begins with a checksum of the key and what follows.

    Numba's own files are numbered by an index: of two processes that compile for different types at once, each takes
    the next number, and either may run what the other has kept under it.
    """

    def __init__(self, folder, base):
        self._folder, self._base = Path(folder), base

    def load(self, key):
        try:
            found = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        data = found[_CHECKSUM:]
        return pickle.loads(data) if found[:_CHECKSUM] == self._checksum(key, data) else None

    def save(self, key, payload):
        data, path = dumps(payload), self._path(key)
        draft = path.with_name(f"{path.name}.{uuid4().hex[:16]}")
        try:
            draft.write_bytes(self._checksum(key, data) + data)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def flush(self):
        for path in self._folder.glob(f"{glob.escape(self._base)}.*"):
            path.unlink(missing_ok=True)

    def _path(self, key):
        return self._folder / f"{self._base}.{self._checksum(key, b'').hex()[:16]}.nbc"

    def _checksum(self, key, data):
        # The name of a type tells the class of a named tuple, but not whose: rnn.Params reads as lstm.Params.
        classes = [f"{one.__module__}.{one.__qualname__}" for one in _classes(key[0])]
        return hashlib.sha256(repr((key, classes)).encode() + data).digest()


def _classes(kinds):
    """Yield the classes of all named tuples within types."""
    for kind in kinds:
        if isinstance(kind, types.BaseNamedTuple):
            yield kind.instance_class
        yield from _classes(getattr(kind, "types", [kind.type] if isinstance(kind, types.Optional) else []))


class _Cache(FunctionCache):
    """Numba's cache of a function, which ends no call: a full disk or a damaged file costs time alone.

    Parts of other functions are kept with these, and not by themselves.
    """

    _impl_class = _Files

    def __init__(self, function):
        super().__init__(function)
        self._cache_file = _Entries(self._cache_path, self._impl.filename_base)

    def load_overload(self, sig, target_context):
        if Parts.under_way:
            return None
        with suppress(Exception):  # what is kept and cannot be used, why ever, is compiled and written anew
            found = super().load_overload(sig, target_context)
            return found if found and found.signature.args == sig else None
        return None

    def save_overload(self, sig, data):
        if isinstance(data.library, Part):
            return
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _warn(error)


def compiled(function, **options):
    """Compile `function` on its first call, keep the result on disk, and let other threads run beside it.

    With NUMBA_DISABLE_JIT it stays Python, but for the kernels of this package, which then say that they cannot.
    """
    if config.DISABLE_JIT:
        return _refusal(function) if function.__module__.startswith("kernels.") else function
    options = {"nopython": True, "nogil": True, "boundscheck": None, **options}
    return kept(Dispatcher(function, targetoptions=options, pipeline_class=Parts))


def kept(dispatcher):
    """Have what is compiled of a function kept on disk."""
    if _folder(_sources(dispatcher.py_func)) is not None:
        dispatcher._cache = _Cache(dispatcher.py_func)
    return dispatcher


def _refusal(function):
    def refuse(*_, **__):
        raise NotImplementedError(
            "NUMBA_DISABLE_JIT is set, but SIMD kernels cannot run as Python: unset it, or use kernels.jit or reference"
        )

    refuse.py_func = function
    return refuse


def _sources(function):
    """Return the folder of a function's package, the outermost, or where that would be in what it is packed in."""
    module = sys.modules.get(function.__module__)
    file = Path(getattr(module, "__file__", None) or function.__code__.co_filename)  # byte code may have moved
    return file.absolute().parents[max(0, function.__module__.count(".") - 1)]


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
