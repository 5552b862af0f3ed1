"""The definition of weights below float32, held against numbers worked out apart from it."""

from fractions import Fraction
from importlib import import_module

import numpy as np
import pytest

from reference import quantized
from tests.kernels.compare import Size, draw

CELLS = ("rnn", "gru", "lstm")
by_cell = pytest.mark.parametrize("cell", CELLS)


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (1.0, 1.0),
        (1 + 2**-8, 1.0),  # half way, to even
        (1 + 3 * 2**-8, 1 + 2**-6),  # half way, to even
        (1 + 2**-8 + 2**-20, 1 + 2**-7),
        (-(1 + 2**-8), -1.0),
        (3.4e38, np.inf),
        (-np.inf, -np.inf),
        (2.0**-133, 2.0**-133),  # the smallest of all
        (0.0, 0.0),
    ],
)
def test_bfloat16_is_the_nearest_and_half_way_the_even_one(value, rounded):
    assert quantized.round_bfloat16(np.array([value], np.float32))[0] == np.float32(rounded)


def test_bfloat16_keeps_what_is_not_a_number():
    bits = np.array([0x7F800001, 0xFFFFFFFF, 0x7FC00000], np.uint32)
    assert np.isnan(quantized.round_bfloat16(bits.view(np.float32))).all()


def test_bfloat16_agrees_with_torch():
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    values = bits.view(np.float32)
    ref = torch.from_numpy(values.copy()).bfloat16().float().numpy()
    np.testing.assert_array_equal(quantized.round_bfloat16(values), ref)


def test_int8_has_a_scale_for_each_row():
    rows = np.array([[127, -63.5, 0.4], [0, 0, 0], [2.0**-101, 0, 0], [-0.5, 0.25, 0.125]], np.float32)
    integers, scales = quantized.quantize_rows(rows)
    assert integers.tolist() == [[127, -64, 0], [0, 0, 0], [0, 0, 0], [-127, 64, 32]]
    np.testing.assert_allclose(scales, [1, 0, 0, 0.5 / 127], rtol=2e-7)


@by_cell
def test_a_step_of_int8_by_fractions(cell):
    """The sums of the pre-activations of one step, in exact arithmetic, from the integers and scales alone."""
    module = import_module(f"reference.{cell}")
    params, x, state, *_ = draw(module, Size(5, 3, 1, 2), np.float32)
    weights = module.prepare(params, "int8")
    for matrix, a, steps in ((weights.U, x[0], None), (weights.W, state.h, np.float32(127))):
        comp = a @ matrix.T
        for b, row in enumerate(a):
            largest = np.abs(row).max()
            by = np.float32(127) / largest if steps is None else steps
            scale = largest * np.float32(1 / 127) if steps is None else np.float32(1 / 127)
            q = [round(Fraction(float(np.float32(value) * by))) for value in row]
            for unit in range(len(matrix.scales)):
                total = sum(k * int(w) for k, w in zip(q, matrix.integers[unit], strict=True))
                exact = total * Fraction(float(scale)) * Fraction(float(matrix.scales[unit]))
                assert abs(Fraction(float(comp[b, unit])) - exact) <= abs(exact) * Fraction(2) ** -22


@by_cell
@pytest.mark.parametrize("dtype", quantized.DTYPES)
def test_the_same_numbers_in_float64_give_the_same(cell, dtype):
    module = import_module(f"reference.{cell}")
    params, x, state, *_ = draw(module, Size(9, 4, 1, 3), np.float32)
    ref = module.forward_step(module.prepare(params, dtype), x[0], state).h
    wide = [type(part)(*(a.astype(np.float64) for a in part)) for part in (params, state)]
    comp = module.forward_step(module.prepare(wide[0], dtype), x[0].astype(np.float64), wide[1]).h
    assert comp.dtype == np.float64
    assert ref.dtype == np.float32
    np.testing.assert_allclose(comp, ref, atol=1e-6)


@by_cell
def test_one_hot_inputs_are_exact(cell):
    module = import_module(f"reference.{cell}")
    params, x, *_ = draw(module, Size(9, 4, 6, 3), np.float32, one_hot=np.int64)
    weights = module.prepare(params, "int8")
    ref = module.infer(weights, np.eye(4, dtype=np.float32)[x]).hs
    np.testing.assert_allclose(module.infer(weights, x).hs, ref, atol=1e-6)


@by_cell
def test_what_int8_refuses(cell):
    module = import_module(f"reference.{cell}")
    params, x, state, *_ = draw(module, Size(9, 4, 2, 3), np.float32)
    weights = module.prepare(params, "int8")
    x[1, 2, 3] = np.inf
    with pytest.raises(ValueError, match="x: expected finite numbers for int8"):
        module.infer(weights, x, state)
    state.h[0, 0] = 1.5
    with pytest.raises(ValueError, match="state: expected values from -1 to 1 for int8"):
        module.forward_step(weights, x[0], state)
    params.W[2, 2] = np.nan
    with pytest.raises(ValueError, match=r"params\.W: expected finite numbers for int8"):
        module.prepare(params, "int8")
    with pytest.raises(ValueError, match="dtype: expected 'bfloat16' or 'int8', got 'float16'"):
        module.prepare(params, "float16")
