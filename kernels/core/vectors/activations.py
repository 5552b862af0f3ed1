"""tanh, the logistic sigmoid and relu on vectors, and their slopes: within 2 ulp, right at 0, ±inf, NaN and subnormals.

The two curves share an exponential. With y = n ln 2 + r and |r| <= ln 2 / 2,

    p = expm1(r) = r + r² q(r),    e^y = 2^n (1 + p)

where r is taken from y in two steps to keep its accuracy (Cody and Waite 1980). The coefficients of q, and of tanh
near 0, are minimax: they are off by less than 0.02 ulp.
"""

from kernels.core.code.cache import inlined
from kernels.core.vectors.simd import (
    absolute,
    constant,
    copysign,
    full,
    multiply_add,
    natural_log,
    polynomial,
    power_of_two,
    raised,
    square_root,
    where_equal,
    where_less,
)

TANH, RELU, SIGMOID = range(3)
CODES = {"tanh": TANH, "relu": RELU, "sigmoid": SIGMOID}

_round_bias = constant(1.5 * 2**23, 1.5 * 2**52)  # a number this large has no bits for a fraction
_log2_e = constant(1.4426950408889634, 1.4426950408889634)
_minus_ln2_high = constant(-0.693145751953125, -6.93147180369123816490e-01)  # n times it is exact
_minus_ln2_low = constant(-1.42860676533018e-06, -1.90821492927058770002e-10)
_q = polynomial(
    [
        0.5000000044162668995,
        0.16666666370448225106,
        0.04166636091750235285,
        0.0083333893751872578537,
        0.0013940627061835386371,
        0.00019845873736439137057,
    ],
    [
        0.50000000000000000085,
        0.16666666666666676507,
        0.041666666666666508785,
        0.0083333333333216917851,
        0.001388888888896237006,
        0.00019841269885965217881,
        0.000024801587172538543489,
        2.7557244374959831169e-6,
        2.7557402643888995732e-7,
        2.5108978600926989562e-8,
        2.0875329342909583826e-9,
    ],
)

_tanh_near = constant(0.55, 0.55)  # up to it tanh(x) = x + x³ t(x²)
_tanh_far = constant(10.0, 20.0)  # beyond it tanh(x) = ±1
_t = polynomial(
    [
        -0.33333317290486378498,
        0.13332576110820843522,
        -0.053851171343275245201,
        0.021066660422207257197,
        -0.006266704360986430334,
    ],
    [
        -0.33333333333333297076,
        0.1333333333332638899,
        -0.053968253963622368588,
        0.021869488381792988727,
        -0.0088632325331205091188,
        0.0035920913225349295494,
        -0.0014555381729538430927,
        0.00058842479049936029842,
        -0.00023333026012684137846,
        0.000083241215448171816818,
        -0.0000194472048848870253,
    ],
)

_sigmoid_least = constant(-104.0, -746.0)  # below it sigmoid(x) = 0
_sigmoid_most = constant(40.0, 60.0)  # above it sigmoid(x) = 1
_exp_least = constant(-104.0, -746.0)  # below it e^x = 0
_exp_most = constant(89.0, 710.0)  # above it e^x is infinite
_room = constant(64.0, 512.0)
_down = constant(2.0**-64, 2.0**-512)


@inlined
def _split_exp(y):
    """Return p and 2^n's n + round_bias, for e^y = 2^n (1 + p)."""
    shifted = multiply_add(y, _log2_e(y), _round_bias(y))
    n = shifted - _round_bias(y)
    r = multiply_add(n, _minus_ln2_low(y), multiply_add(n, _minus_ln2_high(y), y))
    return multiply_add(r * r, _q(r), r), shifted


@inlined
def tanh(x):
    """Return 1 - 2 / (e^2|x| + 1) with the sign of x, and near 0, where that cancels, a polynomial."""
    size = absolute(x)
    size = where_less(_tanh_far(x), size, _tanh_far(x), size)
    p, shifted = _split_exp(size + size)
    s = power_of_two(shifted)
    far = 1.0 - 2.0 / multiply_add(s, p, s + 1.0)
    square = size * size
    near = multiply_add(size * square, _t(square), size)
    return copysign(where_less(size, _tanh_near(x), near, far), x)


@inlined
def sigmoid(x):
    """Return 1 / (1 + e^-x), both halves of the fraction small enough for e^-x to stay finite until x is -104."""
    y = where_less(x, _sigmoid_least(x), _sigmoid_least(x), x)
    y = -1.0 * where_less(_sigmoid_most(x), y, _sigmoid_most(x), y)
    p, shifted = _split_exp(y)
    s = power_of_two(shifted - _room(x))
    sum = s + _down(x)
    lost = _down(x) - (sum - s)  # where s is so large that it swallows the 1
    return _down(x) / (sum + multiply_add(s, p, lost))


@inlined
def relu(x):
    """Return max(x, 0), and NaN for NaN."""
    zero = full(x, 0.0)
    return where_less(x, zero, zero, x)


@inlined
def exp(x):
    """Return e^x: 2^n (1 + p) in two factors, so that neither is out of range before the product is."""
    y = where_less(x, _exp_least(x), _exp_least(x), x)
    y = where_less(_exp_most(x), y, _exp_most(x), y)
    p, shifted = _split_exp(y)
    n = shifted - _round_bias(x)
    half = multiply_add(n, full(x, 0.5), _round_bias(x))
    s = power_of_two(half)
    rest = power_of_two(_round_bias(x) + (n - (half - _round_bias(x))))
    return s * multiply_add(rest, p, rest)


@inlined
def log(x):
    return natural_log(x)


@inlined
def sqrt(x):
    return square_root(x)


@inlined
def softplus(x):
    """Return log(1 + e^x): max(x, 0) + log1p(e^-|x|), where log1p(z) = log(w) z / (w - 1) for w = 1 + z (Kahan)."""
    z = exp(-1.0 * absolute(x))
    w = 1.0 + z
    one = full(x, 1.0)
    gone = w - 1.0
    more = where_equal(w, one, z, log(w) * (z / where_equal(w, one, one, gone)))
    return relu(x) + more


@inlined
def power(a, b):
    return raised(a, b)


@inlined
def maximum(a, b):
    """Return the larger, and NaN if either is."""
    return where_less(a, b, b, where_equal(b, b, a, b))


@inlined
def minimum(a, b):
    """Return the smaller, and NaN if either is."""
    return where_less(b, a, b, where_equal(b, b, a, b))


@inlined
def sign(x):
    """Return 1, -1, or 0 and NaN as they are."""
    zero = full(x, 0.0)
    return where_less(zero, x, full(x, 1.0), where_less(x, zero, full(x, -1.0), x))


@inlined
def activate(a, activation):
    """Return act(a), for an activation of CODES."""
    if activation == TANH:
        return tanh(a)
    if activation == SIGMOID:
        return sigmoid(a)
    return relu(a)


@inlined
def slope(h, activation):
    """Return act'(a) where h = act(a)."""
    if activation == TANH:
        return multiply_add(-1.0 * h, h, full(h, 1.0))
    if activation == SIGMOID:
        return multiply_add(-1.0 * h, h, h)
    zero = full(h, 0.0)
    return where_less(zero, h, full(h, 1.0), zero)
