"""Charts say what they hold fixed, name their units, and write the values that they show."""

import numpy as np
import pandas as pd
import pytest

from bench.report import charts, panels
from bench.results.tables import Facts, below, duels, table
from tests.bench.synthetic import LOW, ROOFLINE, SPEEDUPS, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def rows(run):
    return table([run])


def drawn(panel):
    return charts.sheet([panel.draw]).axes[0]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_time_against_hidden_size(rows):
    found = panels.time_panels(rows, "hidden_size")
    assert list(found) == [
        "forward_step, B = 1, I = 1, T = 1",
        "forward_step, B = 32, I = H, T = 1",
        "forward, B = 1, I = 1, T = 50",
        "forward, B = 32, I = H, T = 50",
        "bptt, B = 1, I = 1, T = 50",
        "bptt, B = 32, I = H, T = 50",
        "train, B = 1, I = 1, T = 50",
        "train, B = 32, I = H, T = 50",
    ]
    axes = drawn(found["forward, B = 32, I = H, T = 50"])
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


def test_networks_have_panels_of_their_own(tmp_path):
    grid = {"operation": ["forward"], "batch_size": [32], "seq_len": [50], "layers": [2], "directions": [1, 2]}
    found = panels.time_panels(table([make_run(tmp_path / "run", **grid, lengths=["full", "ragged"])]), "hidden_size")
    assert len(found) == 4
    assert "2 layers, 2 directions, ragged, forward, B = 32, I = H, T = 50" in found


def test_time_against_sequence_length_leaves_out_what_has_one_length(rows):
    found = panels.time_panels(rows, "seq_len")
    assert len(found) == 6
    assert not any(label.startswith("forward_step") for label in found)
    assert drawn(found["bptt, B = 1, I = 1, H = 64"]).get_xlabel() == "sequence length T (steps)"


def test_what_varies_is_in_the_labels(rows):
    more = pd.concat([rows, rows.assign(threads=2), rows.assign(dtype="float64")])
    labels = list(panels.time_panels(more, "hidden_size"))
    assert "forward, float32, B = 1, I = 1, 2 threads, T = 50" in labels
    assert "forward, float64, B = 1, I = 1, 1 thread, T = 50" in labels


def test_one_size_has_no_line(rows):
    assert panels.time_panels(rows[rows["hidden_size"] == 16], "hidden_size") == {}
    assert panels.time_panels(rows[:0], "hidden_size") == {}


def test_heatmaps_write_their_values(run):
    against = duels([run], "numba-simd").query("against == 'numpy'").reset_index(drop=True)
    against.loc[0, ["speedup", "verdict"]] = [1.01, "no difference"]
    found = panels.heat_panels(against)
    assert list(found) == ["RNN"]
    axes = drawn(found["RNN"])
    assert axes.get_xlabel() == "hidden size H (units)"
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[:3] == ["forward_step, B = 1", "B = 32", "forward, B = 1, T = 10"]
    assert len(names) == 2 + 3 * 4
    assert "(1.01)" in texts(axes)
    assert len(texts(axes)) == 3 * len(names)
    assert axes.collections[0].norm(0) == 0.5  # the map's centre is 1x


def test_a_hole_in_a_heatmap_stays_empty(run):
    against = duels([run], "numba-simd").query("against == 'the fastest other' and operation == 'forward'")
    assert len(texts(drawn(panels.heat_panels(against.iloc[1:])["RNN"]))) == 3 * 4 - 1


def test_cells_lie_side_by_side_for_each_number_of_threads(run):
    against = duels([run], "numba-simd").query("against == 'numpy'")
    more = pd.concat([against.assign(cell=cell, threads=n) for cell in ("lstm", "rnn", "gru") for n in (2, 1)])
    assert list(panels.heat_panels(more)) == [
        f"{cell}, {threads}" for threads in ("1 thread", "2 threads") for cell in ("RNN", "GRU", "LSTM")
    ]


def test_ratios_have_their_mean_beside_them(rows):
    axes = drawn(panels.overview_panel(rows, "speedup", ["numba-simd", "torch"], "times as fast"))
    assert texts(axes) == ["0.80×", "4.0×"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["torch", "numba-simd"]


def test_a_roofline_has_a_ceiling_a_level_and_a_dot_a_row(rows):
    machine = rows["machine"].iat[0]
    assert panels.roofline_panels(rows, {}) == {}
    (panel,) = panels.roofline_panels(rows, {machine: ROOFLINE}).values()
    axes = drawn(panel)
    assert texts(axes) == ["L1", "L2", "L3", "memory", "FMA peak 100"]
    ceilings = [line for line in axes.lines if line.get_label().startswith("_")]
    assert [line.get_ydata().max() for line in ceilings] == [100] * 4
    dots = [line for line in axes.lines if not line.get_label().startswith("_")]
    assert sum(len(line.get_xdata()) for line in dots) == len(rows)


def test_bars_say_never():
    rows = pd.DataFrame({"implementation": ["a", "a", "b", "b"], "calls": [2000.0, np.inf, np.inf, np.inf]})
    axes = drawn(panels.bar_panel(rows, "calls", "Title", "calls"))
    assert sorted(texts(axes)) == ["2 k\nnever in 1 of 2", "never"]


@pytest.mark.parametrize("values", [[0.0, 0.0], [np.inf, np.nan], [1e-9, 1e6]])
def test_bars_of_odd_values(values):
    rows = pd.DataFrame({"implementation": ["a", "b"], "compile_s": values})
    assert drawn(panels.bar_panel(rows, "compile_s", "Title", "time", "s")).get_xscale() == "log"


@pytest.fixture(scope="module")
def low(tmp_path_factory):
    return below([make_run(tmp_path_factory.mktemp("runs") / "low", **LOW)])


def test_speed_against_loss_has_a_chart_a_dtype_and_a_dot_a_row(low):
    found = panels.loss_panels(low)
    assert list(found) == ["bfloat16", "int8"]
    axes = drawn(found["int8"])
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert axes.get_xlabel() == "largest error of a state (log scale)"
    assert axes.get_ylabel() == "times as fast as our float32 (log scale)"
    dots = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert list(dots) == ["numba-simd", "onnxruntime", "torch"]
    shown = low.query("implementation == 'torch' and dtype == 'int8'")
    np.testing.assert_array_equal(dots["torch"].get_xdata(), shown["loss"])
    np.testing.assert_array_equal(dots["torch"].get_ydata(), shown["speedup"])


@pytest.mark.parametrize("loss", [0.0, 0.0033, 0.011])
def test_losses_that_are_all_alike_have_a_tick_and_no_dot_is_cut_off(low, loss):
    (panel, _) = panels.loss_panels(low.assign(loss=loss)).values()
    axes = drawn(panel)
    left, right = axes.get_xlim()
    assert any(left < tick < right for tick in axes.get_xticks())
    for line in axes.lines[:3]:
        assert ((left < line.get_xdata()) & (line.get_xdata() < right)).all()


def test_charts_of_speed_against_loss_name_their_machine_where_there_are_several(low):
    several = pd.concat([low, low.assign(machine="another")])
    assert list(panels.loss_panels(several))[-1] == "int8, another"


def test_the_title_of_a_heatmap_lies_within_its_panel(tmp_path):
    """It begins at the map, beside the names of its rows, and is as long as networks make it."""
    grid = {"cell": ["lstm", "gru"], "operation": ["forward"], "layers": [2], "directions": [2], "lengths": ["ragged"]}
    run = make_run(tmp_path / "run", threads=[1, 2], **grid)
    found = panels.heat_panels(duels([run], "numba-simd").query("against == 'numpy'"))
    assert "LSTM, 2 layers, 2 directions, ragged, 2 threads" in found
    figure = charts.sheet([panel.draw for panel in found.values()], size=next(iter(found.values())).size)
    assert len(figure.axes) == 4
    for n, axes in enumerate(figure.axes):
        assert axes.get_tightbbox().x1 <= figure.bbox.width / 3 * (n % 3 + 1), axes.get_title("left")


def test_tails_have_a_panel_for_each_size_and_a_whole_and_a_dashed_line_for_each(tmp_path):
    run = make_run(tmp_path, operation=["stream"], batch_size=[1], seq_len=[1000], hidden_size=[16, 64])
    found = panels.tail_panels(Facts([run]).streams)
    assert list(found) == ["stream, B = 1, I = 1, H = 16", "stream, B = 1, I = 1, H = 64"]
    for panel in found.values():
        lines = [line for line in drawn(panel).lines if len(line.get_xdata()) > 2]
        assert len(lines) == 2 * len(SPEEDUPS)
        for line in lines:
            assert line.get_ydata()[0] == 1
            assert (np.diff(line.get_ydata()) <= 0).all()
