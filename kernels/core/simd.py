"""SIMD vectors for Numba: a type as wide as the host's registers, and the operations that the kernels need.

A `Vector` is an LLVM vector, so LLVM chooses the instructions for whatever CPU it compiles for; only the number of
lanes is decided here. Memory is reached through bare pointers, `p = pointer(array)`, and offsets counted in elements:
nothing checks them but the kernel that computes them, and nothing keeps the array alive but its owner, so kernels
take pointers only of their arguments.

A tile is a tuple of rows, each a tuple of vectors, and lives in registers: its operations are unrolled here, as IR,
since a loop over a tuple is unrolled by LLVM or not as it likes, and a tile that is not lands in memory.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, overload, register_model

from kernels.core.cache import named


def _host_bits():
    """Return the width of the host's vector registers, after NUMBA_CPU_NAME and NUMBA_CPU_FEATURES."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    if "+avx512f" in features:
        return 512
    if "+avx2" in features:
        return 256
    return 128


BITS = _host_bits()
REGISTERS = 32 if BITS == 512 or not cpu_target.target_context.codegen().magic_tuple()[0].startswith("x86_64") else 16
ALIGNMENT = 64  # bytes: a cache line, and the widest vector


def vector_lanes(dtype):
    """Return how many numbers of this NumPy dtype fill a vector."""
    return BITS // 8 // dtype.itemsize


class Vector(types.Type):
    def __init__(self, dtype):
        self.dtype = dtype
        self.lanes = BITS // dtype.bitwidth
        super().__init__(f"Vector({dtype}, {self.lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        element = dmm.lookup(fe_type.dtype).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(element, fe_type.lanes))


_INT32 = ir.IntType(32)
_INDEX = ir.IntType(64)


def _splat(builder, scalar, n):
    """Return the IR of a vector with `scalar` in all of its n lanes."""
    one = builder.insert_element(ir.Constant(ir.VectorType(scalar.type, n), ir.Undefined), scalar, _INT32(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_INT32, n), [0] * n))


def _constant(vector, value):
    return ir.Constant(vector, [value] * vector.count)


def _llvm(builder, name, result, args):
    """Call the LLVM intrinsic `name`, whose overload llvmlite cannot name for vectors."""
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [a.type for a in args]), name)
    return builder.call(function, args)


def _suffix(vector):
    return f"v{vector.count}f{32 if isinstance(vector.element, ir.FloatType) else 64}"


def _load(builder, pointer, vector, first=None):
    """Load a vector from any address a number may have; lanes from the `first`-th on are 0 and not read."""
    address = builder.bitcast(pointer, vector.as_pointer())
    align = 4 if isinstance(vector.element, ir.FloatType) else 8
    if first is None:
        return builder.load(address, align=align)
    return _llvm(
        builder,
        f"llvm.masked.load.{_suffix(vector)}.p0",
        vector,
        [address, _INT32(align), _mask(builder, vector, first), _constant(vector, 0.0)],
    )


def _store(builder, value, pointer, first=None):
    address = builder.bitcast(pointer, value.type.as_pointer())
    align = 4 if isinstance(value.type.element, ir.FloatType) else 8
    if first is None:
        return builder.store(value, address, align=align)
    args = [value, address, _INT32(align), _mask(builder, value.type, first)]
    return _llvm(builder, f"llvm.masked.store.{_suffix(value.type)}.p0", ir.VoidType(), args)


def _mask(builder, vector, first):
    count = ir.VectorType(_INT32, vector.count)
    first = _splat(builder, builder.trunc(first, _INT32), vector.count)
    return builder.icmp_signed("<", ir.Constant(count, list(range(vector.count))), first)


def _multiply_add(builder, a, b, c):
    """a b + c: fused where the host has an instruction for it, since the C library's fma would take its place."""
    return _llvm(builder, f"llvm.fmuladd.{_suffix(a.type)}", a.type, [a, b, c])


@intrinsic
def pointer(typingctx, array):
    """Return the address of the first element of a C-contiguous array."""
    if not isinstance(array, types.Array) or array.layout != "C":
        raise TypingError("pointer: expected a C-contiguous array")

    def codegen(context, builder, signature, args):
        return context.make_array(array)(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def align(typingctx, p):
    """Return the first address from p on at which a cache line starts."""

    def codegen(context, builder, signature, args):
        address = builder.add(builder.ptrtoint(args[0], _INDEX), _INDEX(ALIGNMENT - 1))
        return builder.inttoptr(builder.and_(address, _INDEX(-ALIGNMENT)), args[0].type)

    return p(p), codegen


@intrinsic
def lanes(typingctx, p):
    """Return how many of the numbers at p fill a vector."""
    n = Vector(p.dtype).lanes

    def codegen(context, builder, signature, args):
        return _INDEX(n)

    return types.intp(p), codegen


@intrinsic
def at(typingctx, p, i):
    """Return the pointer `i` elements behind `p`."""

    def codegen(context, builder, signature, args):
        return builder.gep(args[0], [args[1]])

    return p(p, types.intp), codegen


@intrinsic
def load(typingctx, p, i):
    """Return the vector that starts at p[i]."""
    vector = Vector(p.dtype)

    def codegen(context, builder, signature, args):
        return _load(builder, builder.gep(args[0], [args[1]]), context.get_value_type(vector))

    return vector(p, types.intp), codegen


@intrinsic
def load_first(typingctx, p, i, n):
    """Return the vector that starts at p[i], its lanes from the n-th on zero and not read."""
    vector = Vector(p.dtype)

    def codegen(context, builder, signature, args):
        return _load(builder, builder.gep(args[0], [args[1]]), context.get_value_type(vector), args[2])

    return vector(p, types.intp, types.intp), codegen


@intrinsic
def store(typingctx, p, i, vector):
    """Write the vector to p[i] and on."""

    def codegen(context, builder, signature, args):
        _store(builder, args[2], builder.gep(args[0], [args[1]]))
        return context.get_dummy_value()

    return types.void(p, types.intp, vector), codegen


@intrinsic
def store_first(typingctx, p, i, vector, n):
    """Write the vector's first n lanes to p[i] and on."""

    def codegen(context, builder, signature, args):
        _store(builder, args[2], builder.gep(args[0], [args[1]]), args[3])
        return context.get_dummy_value()

    return types.void(p, types.intp, vector, types.intp), codegen


@intrinsic
def prefetch(typingctx, p, i):
    """Ask for the cache line of p[i], which need not exist."""

    def codegen(context, builder, signature, args):
        address = builder.gep(args[0], [args[1]])
        types_ = [address.type, _INT32, _INT32, _INT32]
        function = ir.FunctionType(ir.VoidType(), types_)
        call = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
        builder.call(call, [address, _INT32(0), _INT32(3), _INT32(1)])  # to read, into every level, data
        return context.get_dummy_value()

    return types.void(p, types.intp), codegen


@intrinsic
def full(typingctx, vector, number):
    """Return a vector like `vector` with `number` in every lane."""

    def codegen(context, builder, signature, args):
        return _splat(builder, context.cast(builder, args[1], number, vector.dtype), vector.lanes)

    return vector(vector, number), codegen


@intrinsic
def multiply_add(typingctx, a, b, c):
    """Return a b + c, rounded once where the host can."""

    def codegen(context, builder, signature, args):
        return _multiply_add(builder, *args)

    return a(a, a, a), codegen


@intrinsic
def absolute(typingctx, a):
    def codegen(context, builder, signature, args):
        return _llvm(builder, f"llvm.fabs.{_suffix(args[0].type)}", args[0].type, args)

    return a(a), codegen


@intrinsic
def copysign(typingctx, a, sign):
    """Return a with the sign of `sign`, lane by lane."""

    def codegen(context, builder, signature, args):
        return _llvm(builder, f"llvm.copysign.{_suffix(args[0].type)}", args[0].type, args)

    return a(a, a), codegen


@intrinsic
def where_less(typingctx, x, y, a, b):
    """Return a where x < y, else b; so b where x or y is NaN."""

    def codegen(context, builder, signature, args):
        x, y, a, b = args
        return builder.select(builder.fcmp_ordered("<", x, y), a, b)

    return x(x, x, x, x), codegen


def constant(single, double):
    """Return an intrinsic f(like): the vector of one number, which depends on the precision of `like`."""

    @intrinsic
    def fill(typingctx, like):
        def codegen(context, builder, signature, args):
            return _constant(args[0].type, single if like.dtype == types.float32 else double)

        return like(like), codegen

    return fill


def polynomial(single, double):
    """Return an intrinsic p(x): the polynomial with these coefficients, the constant first, for each precision.

    Estrin's scheme: neighbours are joined in pairs, then pairs of pairs, which waits for log2(n) operations and not n.
    """

    @intrinsic
    def evaluate(typingctx, x):
        def codegen(context, builder, signature, args):
            (power,) = args
            terms = [_constant(power.type, c) for c in (single if x.dtype == types.float32 else double)]
            while len(terms) > 1:
                odd_one = terms[len(terms) // 2 * 2 :]
                terms = [_multiply_add(builder, power, b, a) for a, b in zip(terms[::2], terms[1::2], strict=False)]
                terms += odd_one
                power = builder.fmul(power, power)
            return terms[0]

        return x(x), codegen

    return evaluate


@intrinsic
def power_of_two(typingctx, shifted):
    """Return 2^n for shifted = n + 1.5 2^23 (in double 1.5 2^52): n, the low bits of that sum, becomes the exponent."""

    def codegen(context, builder, signature, args):
        vector = args[0].type
        size, mantissa = (32, 23) if isinstance(vector.element, ir.FloatType) else (64, 52)
        bits = ir.VectorType(ir.IntType(size), vector.count)
        exponent = builder.shl(builder.bitcast(args[0], bits), _constant(bits, mantissa))
        one = builder.bitcast(_constant(vector, 1.0), bits)
        return builder.bitcast(builder.add(one, exponent), vector)

    return shifted(shifted), codegen


def _arithmetic(op, name):
    ours = named(f"vector_{name}")

    @intrinsic
    def both(typingctx, a, b):
        def codegen(context, builder, signature, args):
            return getattr(builder, name)(*args)

        return a(a, a), codegen

    @overload(op)
    def overloaded(a, b):
        if isinstance(a, Vector) and a == b:
            return ours(lambda a, b: both(a, b))
        if isinstance(a, Vector) and isinstance(b, types.Number):
            return ours(lambda a, b: both(a, full(a, b)))
        if isinstance(b, Vector) and isinstance(a, types.Number):
            return ours(lambda a, b: both(full(b, a), b))


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")


def _tile(tile):
    return tile.count, tile.dtype.count, tile.dtype.dtype


def _each(builder, p, row, rows, vectors, n):
    """Yield r, v and the address of vector v in row r of the tile at p, whose rows lie `row` elements apart."""
    for r in range(rows):
        start = builder.gep(p, [builder.mul(row, _INDEX(r))])
        for v in range(vectors):
            yield r, v, builder.gep(start, [_INDEX(v * n)])


@intrinsic(prefer_literal=True)
def zero_tile(typingctx, p, rows, vectors):
    """Return a tile of zeros of p's precision; `rows` and `vectors` are constants."""
    tile = types.UniTuple(types.UniTuple(Vector(p.dtype), vectors.literal_value), rows.literal_value)

    def codegen(context, builder, signature, args):
        return ir.Constant(context.get_value_type(tile), None)

    return tile(p, rows, vectors), codegen


@intrinsic(prefer_literal=True)
def load_tile(typingctx, p, row, rows, vectors):
    """Return the tile at p, whose rows lie `row` elements apart; `rows` and `vectors` are constants."""
    vector = Vector(p.dtype)
    tile = types.UniTuple(types.UniTuple(vector, vectors.literal_value), rows.literal_value)

    def codegen(context, builder, signature, args):
        value = ir.Constant(context.get_value_type(tile), ir.Undefined)
        row = context.cast(builder, args[1], signature.args[1], types.intp)
        for r, v, address in _each(builder, args[0], row, *_tile(tile)[:2], vector.lanes):
            value = builder.insert_value(value, _load(builder, address, context.get_value_type(vector)), [r, v])
        return value

    return tile(p, row, rows, vectors), codegen


@intrinsic
def store_tile(typingctx, p, row, tile):
    """Write the tile to p, its rows `row` elements apart."""
    rows, vectors, vector = _tile(tile)

    def codegen(context, builder, signature, args):
        for r, v, address in _each(builder, args[0], args[1], rows, vectors, vector.lanes):
            _store(builder, builder.extract_value(args[2], [r, v]), address)
        return context.get_dummy_value()

    return types.void(p, types.intp, tile), codegen


@intrinsic
def rank1(typingctx, tile, a, row, w):
    """Return tile + a wᵀ: row r of the tile gains a[r row] times the vectors at w."""
    rows, vectors, vector = _tile(tile)

    def codegen(context, builder, signature, args):
        tile, a, row, w = args
        ws = [load for *_, load in _row(context, builder, w, vectors, vector)]
        for r in range(rows):
            s = _splat(builder, builder.load(builder.gep(a, [builder.mul(row, _INDEX(r))])), vector.lanes)
            for v in range(vectors):
                sum = _multiply_add(builder, s, ws[v], builder.extract_value(tile, [r, v]))
                tile = builder.insert_value(tile, sum, [r, v])
        return tile

    return tile(tile, a, types.intp, w), codegen


@intrinsic
def partial_sums(typingctx, tile, a, step, w):
    """Return the tile where row r gained a[r step] times the r-th row of vectors at w: sums to be folded into one."""
    rows, vectors, vector = _tile(tile)

    def codegen(context, builder, signature, args):
        tile, a, step, w = args
        for r in range(rows):
            s = _splat(builder, builder.load(builder.gep(a, [builder.mul(step, _INDEX(r))])), vector.lanes)
            start = builder.gep(w, [_INDEX(r * vectors * vector.lanes)])
            for v, load in _row(context, builder, start, vectors, vector):
                sum = _multiply_add(builder, s, load, builder.extract_value(tile, [r, v]))
                tile = builder.insert_value(tile, sum, [r, v])
        return tile

    return tile(tile, a, types.intp, w), codegen


def _row(context, builder, w, vectors, vector):
    for v in range(vectors):
        yield v, _load(builder, builder.gep(w, [_INDEX(v * vector.lanes)]), context.get_value_type(vector))


@intrinsic
def fold(typingctx, tile, more):
    """Return the tile `more` of one row plus the sum of the rows of `tile`, a power of two, added in pairs."""
    rows, vectors, _ = _tile(tile)

    def codegen(context, builder, signature, args):
        tile, more = args
        for v in range(vectors):
            parts = [builder.extract_value(tile, [r, v]) for r in range(rows)]
            while len(parts) > 1:
                half = len(parts) // 2
                parts = [builder.fadd(x, y) for x, y in zip(parts[:half], parts[half:], strict=True)]
            sum = builder.fadd(builder.extract_value(more, [0, v]), parts[0])
            more = builder.insert_value(more, sum, [0, v])
        return more

    return more(tile, more), codegen


@intrinsic
def load_square(typingctx, p, row, rows, columns):
    """Return the tile at p of as many rows as a vector has lanes; what lies outside rows x columns is 0, not read."""
    vector = Vector(p.dtype)
    tile = types.UniTuple(types.UniTuple(vector, 1), vector.lanes)

    def codegen(context, builder, signature, args):
        p, row, rows, columns = args
        value = ir.Constant(context.get_value_type(tile), ir.Undefined)
        for r, v, address in _each(builder, p, row, vector.lanes, 1, vector.lanes):
            first = builder.select(builder.icmp_signed("<", _INDEX(r), rows), columns, _INDEX(0))
            load = _load(builder, address, context.get_value_type(vector), first)
            value = builder.insert_value(value, load, [r, v])
        return value

    return tile(p, types.intp, types.intp, types.intp), codegen


@intrinsic
def store_square(typingctx, p, row, tile, rows):
    """Write the first `rows` rows of the tile to p, `row` elements apart."""
    _, _, vector = _tile(tile)

    def codegen(context, builder, signature, args):
        p, row, tile, rows = args
        for r, v, address in _each(builder, p, row, vector.lanes, 1, vector.lanes):
            with builder.if_then(builder.icmp_signed("<", _INDEX(r), rows)):
                _store(builder, builder.extract_value(tile, [r, v]), address)
        return context.get_dummy_value()

    return types.void(p, types.intp, tile, types.intp), codegen


@intrinsic
def transpose(typingctx, tile):
    """Return the transpose of a square tile: blocks of 1, 2, 4, ... change places across the diagonal."""
    n = tile.count

    def codegen(context, builder, signature, args):
        rows = [builder.extract_value(args[0], [r, 0]) for r in range(n)]
        size = 1
        while size < n:
            upper = [lane if not lane & size else n + lane - size for lane in range(n)]
            lower = [lane + size if not lane & size else n + lane for lane in range(n)]
            for i in range(n):
                if not i & size:
                    a, b = rows[i], rows[i | size]
                    for row, lanes in ((i, upper), (i | size, lower)):
                        mask = ir.Constant(ir.VectorType(_INT32, n), lanes)
                        rows[row] = builder.shuffle_vector(a, b, mask)
            size *= 2
        tile = args[0]
        for r in range(n):
            tile = builder.insert_value(tile, rows[r], [r, 0])
        return tile

    return tile(tile), codegen
