"""The host, as Numba compiles for it: after NUMBA_CPU_NAME and NUMBA_CPU_FEATURES, and what the system allows."""

import ctypes
import sys

from numba.core.registry import cpu_target

TRIPLE, _, _features = cpu_target.target_context.codegen().magic_tuple()
FEATURES = {feature[1:] for feature in _features.split(",") if feature.startswith("+")}
X86 = TRIPLE.startswith("x86_64")

BITS = 512 if "avx512f" in FEATURES else 256 if "avx2" in FEATURES else 128  # of a vector register
REGISTERS = 32 if BITS == 512 or not X86 else 16


def _may_use_matrices():
    """Ask the system for the registers of AMX, which it saves for those processes alone that do."""
    if not (sys.platform == "linux" and X86 and BITS == 512 and "amx-tile" in FEATURES):
        return False
    request, of_tiles = 0x1023, 18  # ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return ctypes.CDLL(None).syscall(158, request, of_tiles) == 0  # arch_prctl


MATRICES = _may_use_matrices()
