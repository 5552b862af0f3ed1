"""Every chart has one style, follows the page's colours, and is the same for the same rows."""

import re

import pytest

from bench.report import charts
from bench.results.formats import count, seconds, short


def draw(axes):
    axes.plot([1, 2], [3, 4], **charts.line("numba-simd"))


def test_implementations_look_different_on_light_and_on_dark():
    looks = list(charts.LOOKS.values())
    for field in ("colour", "dark", "marker"):
        assert len({getattr(look, field) for look in looks}) == len(looks)
    assert charts.look("numpy") != charts.look("something new") == charts.OTHER


def test_saved_files_are_the_same_for_the_same_rows(tmp_path):
    for folder in ("one", "two"):
        path = charts.save(charts.sheet([draw, draw]), tmp_path / folder, "chart")
        assert path.read_bytes().startswith(b"\x89PNG")
    svgs = [(tmp_path / folder / "chart.svg").read_bytes() for folder in ("one", "two")]
    assert svgs[0] == svgs[1]


def test_an_inline_svg_takes_the_pages_colours():
    svg = charts.inline_svg(charts.sheet([draw]), 'a "label" <here>')
    assert re.match('<svg [^>]*viewBox="0 0 ', svg)
    assert 'aria-label="a &quot;label&quot; &lt;here&gt;"' in svg
    assert "var(--numba-simd)" in svg
    assert "var(--ink)" in svg
    assert charts.INK not in svg


@pytest.mark.parametrize("name", ["a $ sign", r"$\frac{1}{$", "$$", "笛\U0001f389", "x" * 100, "<b>&\"'"])
@pytest.mark.filterwarnings("error")
def test_a_name_is_drawn_as_it_is_without_a_word(tmp_path, name):
    def draw(axes):
        axes.plot([1, 2], [3, 4], **charts.line(name))
        axes.set(title=name, xlabel=name)
        axes.set_yticks([3, 4], [name, name])

    figure = charts.sheet([draw])
    charts.save(figure, tmp_path, name)
    svg = charts.inline_svg(figure, name)
    assert name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;") in svg
    assert "<!--" not in svg


@pytest.mark.parametrize("name", ["../../out", "/etc/out", "a/b", "a\\b", "A b"])
def test_a_charts_file_stays_in_its_folder(tmp_path, name):
    path = charts.save(charts.sheet([draw]), tmp_path / "charts", name)
    assert path.parent == tmp_path / "charts"
    assert [found.name for found in tmp_path.iterdir()] == ["charts"]
    assert sorted(found.suffix for found in path.parent.iterdir()) == [".png", ".svg"]


@pytest.mark.parametrize(
    ("ratio", "text"), [(0.871, "0.87"), (1.0, "1.00"), (3.21, "3.2"), (9.97, "10"), (32.1, "32"), (320.4, "320")]
)
def test_ratios(ratio, text):
    assert short(ratio) == text


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
    assert seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(7, "7"), (351, "350"), (12345, "12 k"), (3e6, "3 M"), (1, "1")])
def test_counts(value, text):
    assert count(value) == text
