"""Up to sixteen rows at once: products below float32 on the matrix registers of AMX, where the host has them.

A matrix register holds up to 16 rows of 64 bytes. One instruction multiplies rows of 16 units with 16 rows of a panel,
one vector wide, as they lie in memory: panels are packed as it wants them. What is left of K is done by the tiles of
`kernels.core.products.tiles`. The sums of int8 are exact, so they are the same to the bit.
"""

import struct

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from kernels.core.code.cache import INLINE, compiled
from kernels.core.code.host import FEATURES, MATRICES
from kernels.core.vectors.dots import PAIRS, QUADS
from kernels.core.vectors.simd import INDEX, llvm

SIDE = 16  # rows of a matrix register, and its units in a row
KINDS = {kind for kind, feature in ((QUADS, "amx-int8"), (PAIRS, "amx-bf16")) if MATRICES and feature in FEATURES}

_BYTE, _BYTES = ir.IntType(8), ir.PointerType(ir.IntType(8))
_ROW = 64  # bytes
_SUMS, _A, _W = (0, 1, 2), 3, (4, 5, 6)  # registers
_ALONE = (
    96  # units of k, from which on a lone row of bfloat16 is sooner done so: vectors have half of their speed there
)


@compiled
def rows_at_once(rows):
    """Return how many rows to multiply at once: up to 16, and so that the last are about as many."""
    turns = (rows + SIDE - 1) // SIDE
    return (rows + turns - 1) // turns


def takes_one_row(w, K):
    """Tell whether a lone row is multiplied with w by matrix registers, too."""


@overload(takes_one_row, jit_options=INLINE)
def _takes_one_row(w, K):
    if w.dtype == PAIRS and w.dtype in KINDS:
        return lambda w, K: K >= _ALONE
    return lambda w, K: False


def begin_matrices(w, rows):
    """Make the matrix registers of this thread ready for products of so many rows with w; see `end_matrices`."""


@overload(begin_matrices, jit_options=INLINE)
def _begin_matrices(w, rows):
    return (lambda w, rows: begin_rows(rows_at_once(rows))) if w.dtype in KINDS else (lambda w, rows: None)


def end_matrices(w):
    """Let go of the matrix registers, which are saved and restored until then whenever this thread gives way."""


@overload(end_matrices, jit_options=INLINE)
def _end_matrices(w):
    return (lambda w: _end()) if w.dtype in KINDS else (lambda w: None)


def _layout(rows):
    """Return the bytes that tell the registers their sizes: `rows` of sums and of what is multiplied, 16 of w."""
    return struct.pack("<BB14x16H16B", 1, 0, *[_ROW] * 7, *[0] * 9, *[rows] * 4, *[SIDE] * 3, *[0] * 9)


@intrinsic
def begin_rows(typingctx, rows):
    """Make the matrix registers of this thread ready for so many rows at once."""

    def codegen(context, builder, signature, args):
        layouts = cgutils.make_bytearray(b"".join(map(_layout, range(1, SIDE + 1))))
        constant = builder.bitcast(cgutils.global_constant(builder.module, "layouts", layouts), _BYTES)
        chosen = builder.gep(constant, [builder.mul(builder.sub(args[0], INDEX(1)), INDEX(64))])
        llvm(builder, "llvm.x86.ldtilecfg", ir.VoidType(), [chosen])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@intrinsic
def _end(typingctx):
    def codegen(context, builder, signature, args):
        llvm(builder, "llvm.x86.tilerelease", ir.VoidType(), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic(prefer_literal=True)
def multiply_matrices(typingctx, sums, row, a, a_row, w, blocks, vectors):
    """Multiply the rows at a, `a_row` units apart, with so many blocks of 16 rows of the panel at w, `vectors` wide.

    The products are added to the numbers at `sums`, whose rows lie `row` elements apart; for int8 the sums are
    integers, and written there.
    """
    wide, integers = vectors.literal_value, w.dtype == QUADS

    def codegen(context, builder, signature, args):
        sums, row, a, a_row, w, blocks, _ = args
        sums, a, w = (builder.bitcast(p, _BYTES) for p in (sums, a, w))
        row, a_row = builder.mul(row, INDEX(4)), builder.mul(a_row, INDEX(4))  # bytes
        w_row = INDEX(wide * _ROW)

        def call(name, *operands):
            llvm(builder, f"llvm.x86.{name}", ir.VoidType(), list(operands))

        def register(number):
            return _BYTE(number)

        for v in range(wide):
            if integers:
                call("tilezero", register(_SUMS[v]))
            else:
                call("tileloadd64", register(_SUMS[v]), builder.gep(sums, [INDEX(v * _ROW)]), row)
        with cgutils.for_range(builder, blocks) as loop:
            call("tileloadd64", register(_A), builder.gep(a, [builder.mul(loop.index, INDEX(_ROW))]), a_row)
            block = builder.gep(w, [builder.mul(loop.index, INDEX(SIDE * wide * _ROW))])
            for v in range(wide):
                call("tileloadd64", register(_W[v]), builder.gep(block, [INDEX(v * _ROW)]), w_row)
                call("tdpbusd" if integers else "tdpbf16ps", *map(register, (_SUMS[v], _A, _W[v])))
        for v in range(wide):
            call("tilestored64", register(_SUMS[v]), builder.gep(sums, [INDEX(v * _ROW)]), row)
        return context.get_dummy_value()

    return types.void(sums, types.intp, a, types.intp, w, types.intp, vectors), codegen


@intrinsic(prefer_literal=True)
def room(typingctx, w, vectors):
    """Return where the integer sums of 16 rows find room, on the stack: rows of so many vectors."""
    count = SIDE * SIDE * vectors.literal_value

    def codegen(context, builder, signature, args):
        with builder.goto_entry_block():
            place = builder.alloca(ir.IntType(32), count)
        place.align = _ROW
        return place

    return types.CPointer(types.int32)(w, vectors), codegen
