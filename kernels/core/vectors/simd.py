"""SIMD vectors for Numba: a type as wide as the host's registers, and the operations that the kernels need.

A `Vector` is an LLVM vector, so LLVM chooses the instructions for whatever CPU it compiles for; only the number of
lanes is decided here. Memory is reached through bare pointers, `p = pointer(array)`, and offsets counted in elements:
nothing checks them but the kernel that computes them, and nothing keeps the array alive but its owner, so kernels
take pointers only of their arguments.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, overload, register_model

from kernels.core.code.cache import named
from kernels.core.code.host import BITS

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


INT32 = ir.IntType(32)
INDEX = ir.IntType(64)


def splat(builder, scalar, n):
    """Return the IR of a vector with `scalar` in all of its n lanes."""
    one = builder.insert_element(ir.Constant(ir.VectorType(scalar.type, n), ir.Undefined), scalar, INT32(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(INT32, n), [0] * n))


def ir_constant(vector, value):
    return ir.Constant(vector, [value] * vector.count)


def llvm(builder, name, result, args):
    """Call the LLVM intrinsic `name`, whose overload llvmlite cannot name for vectors."""
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [a.type for a in args]), name)
    return builder.call(function, args)


def suffix(vector):
    kind = "i" if isinstance(vector.element, ir.IntType) else "f"
    return f"v{vector.count}{kind}{8 * _size(vector)}"


def _size(vector):
    """Return the bytes of an element."""
    if isinstance(vector.element, ir.IntType):
        return vector.element.width // 8
    return 4 if isinstance(vector.element, ir.FloatType) else 8


def ir_load(builder, pointer, vector, first=None):
    """Load a vector from any address a number may have; lanes from the `first`-th on are 0 and not read."""
    address = builder.bitcast(pointer, vector.as_pointer())
    align = _size(vector)
    if first is None:
        return builder.load(address, align=align)
    return llvm(
        builder,
        f"llvm.masked.load.{suffix(vector)}.p0",
        vector,
        [address, INT32(align), _mask(builder, vector, first), ir.Constant(vector, None)],
    )


def ir_store(builder, value, pointer, first=None):
    address = builder.bitcast(pointer, value.type.as_pointer())
    align = _size(value.type)
    if first is None:
        return builder.store(value, address, align=align)
    args = [value, address, INT32(align), _mask(builder, value.type, first)]
    return llvm(builder, f"llvm.masked.store.{suffix(value.type)}.p0", ir.VoidType(), args)


def _mask(builder, vector, first):
    count = ir.VectorType(INT32, vector.count)
    first = splat(builder, builder.trunc(first, INT32), vector.count)
    return builder.icmp_signed("<", ir.Constant(count, list(range(vector.count))), first)


def ir_multiply_add(builder, a, b, c):
    """a b + c: fused where the host has an instruction for it, since the C library's fma would take its place."""
    return llvm(builder, f"llvm.fmuladd.{suffix(a.type)}", a.type, [a, b, c])


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
        address = builder.add(builder.ptrtoint(args[0], INDEX), INDEX(ALIGNMENT - 1))
        return builder.inttoptr(builder.and_(address, INDEX(-ALIGNMENT)), args[0].type)

    return p(p), codegen


@intrinsic
def reach(typingctx, kind, address):
    """Return a pointer to an address: `kind` is a pointer like it, or a NumPy dtype."""
    to = types.CPointer(kind.dtype)

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[1], context.get_value_type(to))

    return to(kind, types.int64), codegen


@intrinsic
def lanes(typingctx, p):
    """Return how many of the numbers at p fill a vector."""
    n = Vector(p.dtype).lanes

    def codegen(context, builder, signature, args):
        return INDEX(n)

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
        return ir_load(builder, builder.gep(args[0], [args[1]]), context.get_value_type(vector))

    return vector(p, types.intp), codegen


@intrinsic
def load_first(typingctx, p, i, n):
    """Return the vector that starts at p[i], its lanes from the n-th on zero and not read."""
    vector = Vector(p.dtype)

    def codegen(context, builder, signature, args):
        return ir_load(builder, builder.gep(args[0], [args[1]]), context.get_value_type(vector), args[2])

    return vector(p, types.intp, types.intp), codegen


@intrinsic
def store(typingctx, p, i, vector):
    """Write the vector to p[i] and on."""

    def codegen(context, builder, signature, args):
        ir_store(builder, args[2], builder.gep(args[0], [args[1]]))
        return context.get_dummy_value()

    return types.void(p, types.intp, vector), codegen


@intrinsic
def store_first(typingctx, p, i, vector, n):
    """Write the vector's first n lanes to p[i] and on."""

    def codegen(context, builder, signature, args):
        ir_store(builder, args[2], builder.gep(args[0], [args[1]]), args[3])
        return context.get_dummy_value()

    return types.void(p, types.intp, vector, types.intp), codegen


@intrinsic
def prefetch(typingctx, p, i):
    """Ask for the cache line of p[i], which need not exist."""

    def codegen(context, builder, signature, args):
        address = builder.gep(args[0], [args[1]])
        types_ = [address.type, INT32, INT32, INT32]
        function = ir.FunctionType(ir.VoidType(), types_)
        call = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
        builder.call(call, [address, INT32(0), INT32(3), INT32(1)])  # to read, into every level, data
        return context.get_dummy_value()

    return types.void(p, types.intp), codegen


@intrinsic
def full(typingctx, vector, number):
    """Return a vector like `vector` with `number` in every lane."""

    def codegen(context, builder, signature, args):
        return splat(builder, context.cast(builder, args[1], number, vector.dtype), vector.lanes)

    return vector(vector, number), codegen


@intrinsic
def multiply_add(typingctx, a, b, c):
    """Return a b + c, rounded once where the host can."""

    def codegen(context, builder, signature, args):
        return ir_multiply_add(builder, *args)

    return a(a, a, a), codegen


@intrinsic
def absolute(typingctx, a):
    def codegen(context, builder, signature, args):
        return llvm(builder, f"llvm.fabs.{suffix(args[0].type)}", args[0].type, args)

    return a(a), codegen


@intrinsic
def copysign(typingctx, a, sign):
    """Return a with the sign of `sign`, lane by lane."""

    def codegen(context, builder, signature, args):
        return llvm(builder, f"llvm.copysign.{suffix(args[0].type)}", args[0].type, args)

    return a(a, a), codegen


def _where(comparison, name):
    @intrinsic
    @named(f"where_{name}")
    def where(typingctx, x, y, a, b):
        def codegen(context, builder, signature, args):
            x, y, a, b = args
            return builder.select(builder.fcmp_ordered(comparison, x, y), a, b)

        return x(x, x, x, x), codegen

    return where


# where(x, y, a, b) is a where x < y, x <= y or x == y, else b; so b where x or y is NaN.
where_less, where_less_equal, where_equal = (
    _where(comparison, name) for comparison, name in (("<", "less"), ("<=", "less_equal"), ("==", "equal"))
)


def _by_lanes(name):
    @intrinsic
    @named(f"lanes_{name}")
    def apply(typingctx, a):
        def codegen(context, builder, signature, args):
            return llvm(builder, f"llvm.{name}.{suffix(args[0].type)}", args[0].type, args)

        return a(a), codegen

    return apply


square_root, natural_log = _by_lanes("sqrt"), _by_lanes("log")  # the latter a lane at a time, by the C library


@intrinsic
def raised(typingctx, a, b):
    """Return a to the power of b, a lane at a time, by the C library."""

    def codegen(context, builder, signature, args):
        return llvm(builder, f"llvm.pow.{suffix(args[0].type)}", args[0].type, args)

    return a(a, a), codegen


def constant(single, double):
    """Return an intrinsic f(like): the vector of one number, which depends on the precision of `like`."""

    @intrinsic
    def fill(typingctx, like):
        def codegen(context, builder, signature, args):
            return ir_constant(args[0].type, single if like.dtype == types.float32 else double)

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
            terms = [ir_constant(power.type, c) for c in (single if x.dtype == types.float32 else double)]
            while len(terms) > 1:
                odd_one = terms[len(terms) // 2 * 2 :]
                terms = [ir_multiply_add(builder, power, b, a) for a, b in zip(terms[::2], terms[1::2], strict=False)]
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
        exponent = builder.shl(builder.bitcast(args[0], bits), ir_constant(bits, mantissa))
        one = builder.bitcast(ir_constant(vector, 1.0), bits)
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
