"""Numba's compiler, but for what it does too often: what is compiled for a caller's sake is no machine code of its own.

Numba optimizes every function that another one calls, and makes machine code of it, before it links it into the caller
and optimizes the caller. Of a kernel's hundred functions that is most of the time. Here they are parts: linked as they
come, and optimized where they are called from. If Python calls one, it is compiled once more, as a whole.
"""

from numba import types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from numba.core.sigutils import normalize_signature


class Part(JITCodeLibrary):
    """What a function adds to those that call it."""

    def _optimize_final_module(self):
        """Leave that to the callers."""

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._finalized = True


class Parts(Compiler):
    """A `pipeline_class`: what is compiled while another function is, is a Part."""

    under_way = 0  # functions, each for the one before; the compiler's lock is held where this is not 0

    def __init__(self, typingctx, targetctx, library, *rest):
        part = Parts.under_way > 0
        if part:
            library = Part(targetctx.codegen(), f"part {id(self)}")
        super().__init__(typingctx, targetctx, library, *rest)
        if part:
            self.state.flags.no_cpython_wrapper = self.state.flags.no_cfunc_wrapper = True
            self.state.targetctx.get_executable = _no_code

    def compile_extra(self, func):
        Parts.under_way += 1
        try:
            return super().compile_extra(func)
        finally:
            Parts.under_way -= 1


def _no_code(library, fndesc, env):
    """Return what Numba is to know a part by, in the place of machine code: any built-in that nothing else equals."""
    return [].append


class Dispatcher(CPUDispatcher):
    """A function that is compiled with Parts, and as a whole for whoever calls it from Python."""

    def compile(self, sig):
        with global_compiler_lock:
            arguments = tuple(normalize_signature(sig)[0])
            known = self.overloads.get(arguments)
            if known is not None and isinstance(known.library, Part) and not Parts.under_way:
                del self.overloads[arguments]
            return super().compile(sig)

    def add_overload(self, cres):
        if isinstance(cres.library, Part):
            self.overloads[tuple(cres.signature.args)] = cres
        else:
            super().add_overload(cres)


def take_read_only(dispatcher):
    """Have compiled code take arrays that cannot be written to as well, for which Numba would compile it anew."""

    def compile_for(signature):
        plain = tuple(a.copy(readonly=False) if isinstance(a, types.Array) else a for a in signature)
        code = type(dispatcher).compile(dispatcher, plain)
        if signature != plain:
            dispatcher._insert([a._code for a in signature], code, False)
        return code

    dispatcher.compile = compile_for
    return dispatcher
