"""The middle rung: the functions of `reference`, compiled by Numba as they stand.

What a person gets from writing `@njit` above NumPy code, and the yardstick for what the rest of this package adds.
"""

from types import FunctionType, SimpleNamespace

from numba import config, njit

import reference.gru
import reference.lstm
import reference.rnn
from kernels.core.code.cache import kept


def _compile(module):
    """Return a namespace of the module's names with each of its functions compiled, its source unchanged.

    The functions call one another by their global names, so they are rebuilt over one set of globals that leads
    to the compiled ones. `init_params` stays in Python: it takes a dtype and a seeded generator, and runs once.
    """
    namespace = dict(vars(module))
    functions = {name: f for name, f in namespace.items() if isinstance(f, FunctionType) and name != "init_params"}
    for name, function in functions.items():
        rebuilt = FunctionType(function.__code__, namespace, name, function.__defaults__)
        rebuilt.__doc__, rebuilt.__module__ = function.__doc__, function.__module__
        namespace[name] = rebuilt if config.DISABLE_JIT else kept(njit(rebuilt, nogil=True))
    return SimpleNamespace(**namespace)


rnn = _compile(reference.rnn)
gru = _compile(reference.gru)
lstm = _compile(reference.lstm)
