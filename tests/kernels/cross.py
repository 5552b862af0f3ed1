"""`python -m tests.kernels.cross TRIPLE CPU FEATURES < SIGNATURES`: compile kernels for another machine, and run none.

SIGNATURES is a pickled list of (module, function, argument types). Prints as JSON, for each of them, how often each
instruction with a vector register stands in the assembly.
"""

import json
import os
import pickle
import re
import sys
from collections import Counter
from importlib import import_module

import llvmlite.binding


def main(triple, cpu, features):
    os.environ |= {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
    llvmlite.binding.initialize_all_targets()
    llvmlite.binding.initialize_all_asmprinters()
    llvmlite.binding.get_process_triple = lambda: triple  # which is what Numba compiles for
    found = []
    for module, name, types in pickle.load(sys.stdin.buffer):
        function = getattr(import_module(module), name)
        function.compile(types)
        found.append(Counter(vector_instructions(function.inspect_asm(types))))
    print(json.dumps(found))


def vector_instructions(assembly):
    """Yield each instruction with its first vector register: "fmla v.4s", "mulps xmm"; "vfmadd zmm" in any order."""
    for name, operands in re.findall(r"^\t(?:\{vex\}\s*)?([a-z]\w*)\s+(\S.*)", assembly, re.MULTILINE):
        if register := re.search(r"\b(v)\d+(\.\d+[bhsd])|%([xyz]mm)\d+", operands):
            yield f"{re.sub('(?<=vfmadd).*', '', name)} {register[3] or register[1] + register[2]}"


if __name__ == "__main__":
    main(*sys.argv[1:])
