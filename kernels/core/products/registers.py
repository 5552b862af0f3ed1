"""Tiles of sums in registers, and the steps of a product that they take.

A tile is a tuple of rows, each a tuple of vectors, and lives in registers: its operations are unrolled here, as IR,
since a loop over a tuple is unrolled by LLVM or not as it likes, and a tile that is not lands in memory.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.core.vectors.dots import SUMS, dot, settle
from kernels.core.vectors.simd import INDEX, INT32, Vector, ir_load, ir_store, splat


def _tile(tile):
    return tile.count, tile.dtype.count, tile.dtype.dtype


def _each(builder, p, row, rows, vectors, n):
    """Yield r, v and the address of vector v in row r of the tile at p, whose rows lie `row` elements apart."""
    for r in range(rows):
        start = builder.gep(p, [builder.mul(row, INDEX(r))])
        for v in range(vectors):
            yield r, v, builder.gep(start, [INDEX(v * n)])


@intrinsic(prefer_literal=True)
def zero_tile(typingctx, w, rows, vectors):
    """Return a tile of zeros for the sums of products with what lies at w; `rows` and `vectors` are constants."""
    p, tile = w, types.UniTuple(types.UniTuple(Vector(SUMS[w.dtype]), vectors.literal_value), rows.literal_value)

    def codegen(context, builder, signature, args):
        return ir.Constant(context.get_value_type(tile), None)

    return tile(p, rows, vectors), codegen


@intrinsic
def store_tile(typingctx, p, row, tile):
    """Write the tile to p, its rows `row` elements apart."""
    rows, vectors, vector = _tile(tile)

    def codegen(context, builder, signature, args):
        for r, v, address in _each(builder, args[0], args[1], rows, vectors, vector.lanes):
            ir_store(builder, builder.extract_value(args[2], [r, v]), address)
        return context.get_dummy_value()

    return types.void(p, types.intp, tile), codegen


def _read(context, builder, tile, p, row, kind):
    """Return the IR of the tile at p, of the size of `tile`."""
    rows, vectors, vector = _tile(kind)
    for r, v, address in _each(builder, p, row, rows, vectors, vector.lanes):
        tile = builder.insert_value(tile, ir_load(builder, address, context.get_value_type(vector)), [r, v])
    return tile


@intrinsic
def tile_at(typingctx, tile, p, row):
    """Return the tile at p, of the size of `tile`, its rows `row` elements apart."""

    def codegen(context, builder, signature, args):
        return _read(context, builder, *args, tile)

    return tile(tile, p, types.intp), codegen


@intrinsic
def sums_before(typingctx, tile, p, row):
    """Return what the tile at p holds already, to be added to; `tile`, of zeros, if its sums are settled at the end."""

    def codegen(context, builder, signature, args):
        zeros, p, row = args
        if tile.dtype.dtype.dtype == types.int32:
            return zeros
        return _read(context, builder, zeros, p, row, tile)

    return tile(tile, p, types.intp), codegen


@intrinsic
def settle_tile(typingctx, p, row, tile, scales, scales_row, w):
    """Write the sums to the tile at p, whose rows lie `row` elements apart.

    Sums of integers become numbers, which are added to those there: scales[r scales_row] is the scale of what row r
    was multiplied with, and at w lies what `kernels.core.vectors.dots` keeps behind a panel.
    """
    rows, vectors, vector = _tile(tile)
    n, integers = vector.lanes, vector.dtype == types.int32

    def codegen(context, builder, signature, args):
        p, row, tile, scales, scales_row, w = args
        row = context.cast(builder, row, signature.args[1], types.intp)
        scales_row = context.cast(builder, scales_row, signature.args[4], types.intp)
        number = ir.VectorType(p.type.pointee, n)
        if integers:
            behind = [
                ir_load(builder, builder.gep(w, [INDEX(i * n)]), tile.type.element.element) for i in range(2 * vectors)
            ]
            by_column = [builder.bitcast(one, number) for one in behind[vectors:]]
        for r, v, address in _each(builder, p, row, rows, vectors, n):
            sum = builder.extract_value(tile, [r, v])
            if integers:
                scale = builder.load(builder.gep(scales, [builder.mul(scales_row, INDEX(r))]))
                sum = settle(builder, sum, behind[v], by_column[v], scale, ir_load(builder, address, number))
            ir_store(builder, sum, address)
        return context.get_dummy_value()

    return types.void(p, row, tile, scales, scales_row, w), codegen


@intrinsic
def rank1(typingctx, tile, a, row, w):
    """Return tile + a wᵀ: row r of the tile gains a[r row] times the vectors at w."""
    rows, vectors, _ = _tile(tile)
    kind, vector = w.dtype, Vector(w.dtype)

    def codegen(context, builder, signature, args):
        tile, a, row, w = args
        ws = [load for *_, load in _row(context, builder, w, vectors, vector)]
        for r in range(rows):
            s = splat(builder, builder.load(builder.gep(a, [builder.mul(row, INDEX(r))])), vector.lanes)
            for v in range(vectors):
                sum = dot(builder, kind, s, ws[v], builder.extract_value(tile, [r, v]))
                tile = builder.insert_value(tile, sum, [r, v])
        return tile

    return tile(tile, a, types.intp, w), codegen


@intrinsic
def partial_sums(typingctx, tile, a, step, w):
    """Return the tile where row r gained a[r step] times the r-th row of vectors at w: sums to be folded into one."""
    rows, vectors, _ = _tile(tile)
    kind, vector = w.dtype, Vector(w.dtype)

    def codegen(context, builder, signature, args):
        tile, a, step, w = args
        for r in range(rows):
            s = splat(builder, builder.load(builder.gep(a, [builder.mul(step, INDEX(r))])), vector.lanes)
            start = builder.gep(w, [INDEX(r * vectors * vector.lanes)])
            for v, load in _row(context, builder, start, vectors, vector):
                sum = dot(builder, kind, s, load, builder.extract_value(tile, [r, v]))
                tile = builder.insert_value(tile, sum, [r, v])
        return tile

    return tile(tile, a, types.intp, w), codegen


def _row(context, builder, w, vectors, vector):
    for v in range(vectors):
        yield v, ir_load(builder, builder.gep(w, [INDEX(v * vector.lanes)]), context.get_value_type(vector))


@intrinsic
def add_tile(typingctx, tile, w):
    """Return the tile plus the vectors at w, row by row."""
    rows, vectors, vector = _tile(tile)

    def codegen(context, builder, signature, args):
        tile, w = args
        for r, v, address in _each(builder, w, INDEX(vectors * vector.lanes), rows, vectors, vector.lanes):
            load = ir_load(builder, address, context.get_value_type(vector))
            tile = builder.insert_value(tile, builder.fadd(builder.extract_value(tile, [r, v]), load), [r, v])
        return tile

    return tile(tile, w), codegen


@intrinsic
def fold(typingctx, tile, more):
    """Return the tile `more` of one row plus the sum of the rows of `tile`, a power of two, added in pairs."""
    rows, vectors, vector = _tile(tile)

    def codegen(context, builder, signature, args):
        tile, more = args
        add = builder.add if vector.dtype == types.int32 else builder.fadd
        for v in range(vectors):
            parts = [builder.extract_value(tile, [r, v]) for r in range(rows)]
            while len(parts) > 1:
                half = len(parts) // 2
                parts = [add(x, y) for x, y in zip(parts[:half], parts[half:], strict=True)]
            sum = add(builder.extract_value(more, [0, v]), parts[0])
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
            first = builder.select(builder.icmp_signed("<", INDEX(r), rows), columns, INDEX(0))
            load = ir_load(builder, address, context.get_value_type(vector), first)
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
            with builder.if_then(builder.icmp_signed("<", INDEX(r), rows)):
                ir_store(builder, builder.extract_value(tile, [r, v]), address)
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
                        mask = ir.Constant(ir.VectorType(INT32, n), lanes)
                        rows[row] = builder.shuffle_vector(a, b, mask)
            size *= 2
        tile = args[0]
        for r in range(n):
            tile = builder.insert_value(tile, rows[r], [r, 0])
        return tile

    return tile(tile), codegen
