"""Charts say what they hold fixed, name their units, and follow the page's colours."""

import numpy as np
import pandas as pd
import pytest

from bench import charts
from bench.report import FASTEST, duels, table
from tests.bench.synthetic import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def rows(run):
    return table([run])


def panel(draw):
    return charts.sheet([draw]).axes[0]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_implementations_look_different_on_light_and_on_dark():
    looks = list(charts.LOOKS.values())
    for field in ("colour", "dark", "marker"):
        assert len({getattr(look, field) for look in looks}) == len(looks)
    assert charts.look("numpy") != charts.look("something new") == charts.OTHER


def test_time_against_hidden_size(rows):
    panels = charts.time_panels(rows, "hidden_size")
    assert list(panels) == [
        "forward_step, B = 1, I = 1, T = 1",
        "forward_step, B = 32, I = H, T = 1",
        "forward, B = 1, I = 1, T = 50",
        "forward, B = 32, I = H, T = 50",
        "bptt, B = 1, I = 1, T = 50",
        "bptt, B = 32, I = H, T = 50",
        "train, B = 1, I = 1, T = 50",
        "train, B = 32, I = H, T = 50",
    ]
    axes = panel(panels["forward, B = 32, I = H, T = 50"])
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert axes.get_xlabel() == "hidden size H (units)"
    assert axes.get_ylabel() == "time of a call"
    assert axes.yaxis.get_major_formatter()(1e-4) == "100 µs"
    ours = next(line for line in axes.lines if line.get_label() == "numba-simd")
    shown = rows.query(
        "implementation == 'numba-simd' and operation == 'forward' and batch_size == 32 and seq_len == 50"
    )
    np.testing.assert_allclose(ours.get_ydata(), shown.sort_values("hidden_size")["median_s"])
    assert len(axes.collections) == len(axes.lines)  # an interval a line


def test_time_against_sequence_length_leaves_out_what_has_one_length(rows):
    panels = charts.time_panels(rows, "seq_len")
    assert len(panels) == 6
    assert not any(label.startswith("forward_step") for label in panels)
    assert panel(panels["bptt, B = 1, I = 1, H = 64"]).get_xlabel() == "sequence length T (steps)"


def test_what_varies_is_in_the_labels(rows):
    more = pd.concat([rows, rows.assign(threads=2), rows.assign(dtype="float64")])
    labels = list(charts.time_panels(more, "hidden_size"))
    assert "forward, float32, B = 1, I = 1, 2 threads, T = 50" in labels
    assert "forward, float64, B = 1, I = 1, 1 thread, T = 50" in labels


def test_one_size_has_no_line(rows):
    assert charts.time_panels(rows[rows["hidden_size"] == 16], "hidden_size") == {}
    assert charts.time_panels(rows[:0], "hidden_size") == {}


def test_heatmaps_write_their_values(run):
    found = duels([run], "numba-simd")
    against = found[found["against"] == "numpy"].copy()
    against.loc[against.index[0], ["speedup", "verdict"]] = [1.01, "no difference"]
    panels = charts.heat_panels(against)
    assert "forward, B = 32" in panels
    axes = panel(panels["forward_step, T = 1"])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("hidden size H (units)", "batch size B")
    assert "(1.01)" in texts(axes)
    assert len(texts(axes)) == 6
    mesh = axes.collections[0]
    assert mesh.norm(0) == 0.5  # the map's centre is 1x


def test_a_hole_in_a_heatmap_stays_empty(run):
    found = duels([run], "numba-simd")
    against = found[(found["against"] == FASTEST) & (found["operation"] == "forward")]
    axes = panel(charts.heat_panels(against.iloc[1:])["forward, B = 1"])
    assert len(texts(axes)) == 5


def test_bars_say_never():
    rows = pd.DataFrame({"implementation": ["a", "a", "b", "b"], "calls": [2000.0, np.inf, np.inf, np.inf]})
    axes = panel(charts.bar_panel(rows, "calls", "Title", "calls"))
    assert sorted(texts(axes)) == ["2 k\nnever in 1 of 2", "never"]


@pytest.mark.parametrize("values", [[0.0, 0.0], [np.inf, np.nan], [1e-9, 1e6]])
def test_bars_of_odd_values(values):
    rows = pd.DataFrame({"implementation": ["a", "b"], "compile_s": values})
    assert panel(charts.bar_panel(rows, "compile_s", "Title", "time", "s")).get_xscale() == "log"


def test_saved_files_are_the_same_for_the_same_rows(rows, tmp_path):
    draws = list(charts.time_panels(rows, "hidden_size").values())[:2]
    for folder in ("one", "two"):
        path = charts.save(charts.sheet(draws), tmp_path / folder, "chart")
        assert path.read_bytes().startswith(b"\x89PNG")
    svgs = [(tmp_path / folder / "chart.svg").read_bytes() for folder in ("one", "two")]
    assert svgs[0] == svgs[1]


def test_an_inline_svg_takes_the_pages_colours(rows):
    draw = next(iter(charts.time_panels(rows, "hidden_size").values()))
    svg = charts.inline_svg(charts.sheet([draw]), 'a "label" <here>')
    assert svg.startswith("<svg viewBox=")
    assert 'aria-label="a &quot;label&quot; &lt;here>"' in svg
    assert "var(--numba-simd)" in svg
    assert "var(--ink)" in svg
    assert charts.INK not in svg


@pytest.mark.parametrize(
    ("ratio", "text"), [(0.871, "0.87"), (1.0, "1.00"), (3.21, "3.2"), (9.97, "10"), (32.1, "32"), (320.4, "320")]
)
def test_ratios(ratio, text):
    assert charts.short(ratio) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.79e-4, "479 µs"),
        (1.2e-3, "1.20 ms"),
        (9.999e-4, "1.00 ms"),
        (3.5e-8, "35.0 ns"),
        (12.3, "12.3 s"),
        (0, "0.00 ns"),
        (1234, "1234 s"),
    ],
)
def test_times(value, text):
    assert charts.seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(7, "7"), (351, "350"), (12345, "12 k"), (3e6, "3 M"), (1, "1")])
def test_counts(value, text):
    assert charts.count(value) == text
