"""A step of a product, by the type of the numbers that are multiplied: in full precision, or below float32.

Below float32 a product's operands are packed several k to a 32-bit unit, whose type says which: QUADS of int8, PAIRS of
bfloat16. So a row of a packed matrix holds `depth` units for K numbers, and one instruction multiplies and adds all k
of a unit where the host has one; elsewhere it is made of others, with the same sums.

int8: the sums are exact integers. A row that is multiplied is unsigned, q + 128, where the host's instruction wants it
so; what that adds, 128 times the sum of each column of w, is taken off again (the correction). Behind a panel of w lie
a row of corrections and a row of scales, before a row that is multiplied its scale, and `settle` makes numbers of sums.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.core.code.host import BITS, FEATURES, TRIPLE, X86
from kernels.core.vectors.simd import INDEX, INT32, Vector, ir_load, ir_multiply_add, llvm, splat

QUADS, PAIRS = types.int32, types.uint32
SUMS = {types.float32: types.float32, types.float64: types.float64, QUADS: types.int32, PAIRS: types.float32}
TOGETHER = {QUADS: 4, PAIRS: 2}  # numbers in a unit
BEHIND = {QUADS: 2}  # rows behind a panel
LEAST = np.float32(2.0**-100)  # as int8 a row whose largest magnitude is below it counts as zeros

DOT_INT8 = X86 and ("avx512vnni" in FEATURES if BITS == 512 else bool({"avx512vnni", "avxvnni"} & FEATURES))
DOT_BFLOAT16 = X86 and "avx512bf16" in FEATURES
SDOT = TRIPLE.startswith(("aarch64", "arm64")) and "dotprod" in FEATURES
OFFSET = 0 if SDOT else 128  # what is added to the integers of a row that is multiplied, where they are unsigned


class _Bfloat(ir.Type):
    """LLVM's bfloat, which llvmlite does not name."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, _Bfloat)

    def __hash__(self):
        return hash(_Bfloat)


def dot(builder, kind, a, w, sums):
    """Return sums + a w, lane by lane, as IR."""
    if kind == QUADS:
        return _dot_int8(builder, a, w, sums)
    if kind == PAIRS:
        return _dot_bfloat16(builder, a, w, sums)
    return ir_multiply_add(builder, a, w, sums)


def _dot_int8(builder, a, w, sums):
    n = sums.type.count
    if DOT_INT8:
        return llvm(builder, f"llvm.x86.avx512.vpdpbusd.{BITS}", sums.type, [sums, a, w])
    if SDOT:
        bytes_ = ir.VectorType(ir.IntType(8), 4 * n)
        operands = [sums, builder.bitcast(a, bytes_), builder.bitcast(w, bytes_)]
        return llvm(builder, "llvm.aarch64.neon.sdot.v4i32.v16i8", sums.type, operands)
    if X86:
        return _dot_int16(builder, a, w, sums)
    for shift in (0, 8, 16, 24):
        byte = builder.and_(builder.lshr(a, _all(a, shift)), _all(a, 0xFF))
        weight = builder.ashr(builder.shl(w, _all(w, 24 - shift)), _all(w, 24))
        sums = builder.add(sums, builder.mul(byte, weight))
    return sums


def _dot_int16(builder, a, w, sums):
    """Widen to 16 bits, where no sum of two products overflows: even bytes, then odd ones."""
    halves = ir.VectorType(ir.IntType(16), 2 * sums.type.count)
    a, w = builder.bitcast(a, halves), builder.bitcast(w, halves)
    eight = _all(a, 8)
    even = builder.and_(a, _all(a, 0xFF)), builder.ashr(builder.shl(w, eight), eight)
    odd = builder.lshr(a, eight), builder.ashr(w, eight)
    name = {128: "sse2.pmadd.wd", 256: "avx2.pmadd.wd", 512: "avx512.pmaddw.d.512"}[BITS]
    for pair in (even, odd):
        sums = builder.add(sums, llvm(builder, f"llvm.x86.{name}", sums.type, pair))
    return sums


def _dot_bfloat16(builder, a, w, sums):
    if DOT_BFLOAT16:
        pairs = ir.VectorType(_Bfloat(), 2 * sums.type.count)
        operands = [sums, builder.bitcast(a, pairs), builder.bitcast(w, pairs)]
        return llvm(builder, f"llvm.x86.avx512bf16.dpbf16ps.{BITS}", sums.type, operands)
    for half in _halves(builder, a, w):
        sums = ir_multiply_add(builder, *(builder.bitcast(one, sums.type) for one in half), sums)
    return sums


def _halves(builder, *units):
    """Yield the first numbers of pairs of bfloat16, then the second ones, as the bits of float32."""
    yield [builder.shl(one, _all(one, 16)) for one in units]
    yield [builder.and_(one, _all(one, 0xFFFF0000)) for one in units]


def settle(builder, sum, correction, scales, scale, before):
    """Return before + (sum + correction) scales scale, as IR."""
    value = builder.sitofp(builder.add(sum, correction), before.type)
    return ir_multiply_add(builder, builder.fmul(value, scales), splat(builder, scale, sum.type.count), before)


def _all(like, value):
    """Return the constant vector of an integer, in the lanes of `like`."""
    bits = like.type.element.width
    return ir.Constant(like.type, [value - (1 << bits) if value >> (bits - 1) else value] * like.type.count)


# How the packed lie in memory.


@intrinsic
def depth(typingctx, w, K):
    """Return how many rows of units K rows make in a packed matrix such as w."""
    together = TOGETHER.get(w.dtype, 1)

    def codegen(context, builder, signature, args):
        return builder.sdiv(builder.add(args[1], INDEX(together - 1)), INDEX(together))

    return types.intp(w, types.intp), codegen


@intrinsic
def behind(typingctx, w):
    """Return how many rows lie behind those of a panel such as w: corrections and scales."""
    return types.intp(w), lambda context, builder, signature, args: INDEX(BEHIND.get(w.dtype, 0))


@intrinsic
def like(typingctx, p, q):
    """Return the address p as one of what lies at q."""
    return q(p, q), lambda context, builder, signature, args: builder.bitcast(args[0], args[1].type)


@intrinsic
def unpacked(typingctx, panel, k, K, width, v, number):
    """Return vector v of row k of the matrix in a panel of K rows, `width` vectors wide, as numbers like `number`."""
    units, kind = Vector(panel.dtype), panel.dtype
    together = TOGETHER.get(kind, 1)

    def codegen(context, builder, signature, args):
        panel, k, K, width, v, number = args

        def vector(row):
            place = builder.add(builder.mul(row, width), v)
            address = builder.gep(panel, [builder.mul(place, INDEX(units.lanes))])
            return ir_load(builder, address, context.get_value_type(units))

        values = vector(builder.sdiv(k, INDEX(together)))
        if kind not in TOGETHER:
            return values
        size = 32 // together
        place = builder.mul(builder.srem(k, INDEX(together)), INDEX(size))
        up = splat(builder, builder.trunc(builder.sub(INDEX(32 - size), place), INT32), units.lanes)
        values = builder.shl(values, up)
        if kind == PAIRS:
            return builder.bitcast(builder.and_(values, _all(values, 0xFFFF0000)), number.type)
        scales = builder.bitcast(vector(builder.add(K, INDEX(1))), number.type)
        return builder.fmul(builder.sitofp(builder.ashr(values, _all(values, 24)), number.type), scales)

    return number(panel, types.intp, types.intp, types.intp, types.intp, number), codegen


@intrinsic
def enter(typingctx, to, c, numbers, steps):
    """Write a vector of numbers, rounded, at column c of the row at `to`: times `steps` as int8, or as bfloat16.

    Nothing is written in full precision, in which numbers are multiplied where they are.
    """
    kind = to.dtype

    def codegen(context, builder, signature, args):
        to, c, numbers, steps = args
        if kind not in TOGETHER:
            return context.get_dummy_value()
        n = numbers.type.count
        integers = ir.VectorType(INT32, n)
        if kind == QUADS:
            # Added to 1.5 2^23, a number leaves its nearest integer in the low bits.
            shifted = builder.fadd(builder.fmul(numbers, steps), ir.Constant(numbers.type, [1.5 * 2**23 + OFFSET] * n))
            rounded, width = builder.bitcast(shifted, integers), 8
        else:
            bits, width = builder.bitcast(numbers, integers), 16
            odd = builder.and_(builder.lshr(bits, _all(bits, 16)), _all(bits, 1))
            nearest = builder.lshr(builder.add(builder.add(bits, _all(bits, 0x7FFF)), odd), _all(bits, 16))
            nan = builder.fcmp_unordered("uno", numbers, numbers)
            quiet = builder.or_(builder.lshr(bits, _all(bits, 16)), _all(bits, 0x40))
            rounded = builder.select(nan, quiet, nearest)
        narrow = ir.VectorType(ir.IntType(width), n)
        first = builder.gep(builder.bitcast(to, ir.PointerType(narrow.element)), [c])
        builder.store(builder.trunc(rounded, narrow), builder.bitcast(first, narrow.as_pointer()), align=width // 8)
        return context.get_dummy_value()

    return types.void(to, types.intp, numbers, numbers), codegen


@intrinsic
def largest_lane(typingctx, a):
    """Return the largest lane of a vector without NaN."""

    def codegen(context, builder, signature, args):
        (a,) = args
        size = 64 if a.type.element == ir.DoubleType() else 32
        return llvm(builder, f"llvm.vector.reduce.fmax.v{a.type.count}f{size}", a.type.element, args)

    return a.dtype(a), codegen
