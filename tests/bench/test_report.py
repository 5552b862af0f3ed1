"""The report of made-up runs: its words, its schema, its files, and the page in a real browser."""

import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pandas as pd
import pytest

from bench.report import FASTEST, duels, table, write
from tests.bench.synthetic import MACHINE, SPEEDUPS, make_run

SMALL = {"operation": ["forward", "train"], "hidden_size": [16, 64], "seq_len": [10, 50], "batch_size": [1]}
TINY = SMALL | {"operation": ["forward"], "seq_len": [10]}
DESIGN = (
    "cell,operation,hidden_size,input_size,seq_len,batch_size,dtype,threads,implementation,version,status,max_error,"
    "compile_s,repeats,median_s,low_s,high_s,baseline,speedup,speedup_low,speedup_high,gflops,peak_fraction,"
)


def losing(row):
    return 0.5 if row["hidden_size"] == 16 and row["operation"] == "train" else 4.0


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    run = make_run(folder, speedups=SPEEDUPS | {"numba-simd": losing}, absent=["jax"], **SMALL)
    write([run], folder)
    return folder


def text_of(path):
    """Return what a reader of the page sees, tags aside."""
    body = path.read_text(encoding="utf-8").split("<body>")[1].split("<script>")[0]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<svg.*?</svg>", "", body, flags=re.DOTALL))))


def test_results_csv_has_the_schema(written):
    assert (written / "results.csv").read_text(encoding="utf-8").startswith(DESIGN)
    frame = pd.read_csv(written / "results.csv")
    assert len(frame) == 8 * 5
    ours = frame[frame["implementation"] == "numba-simd"]
    assert ours["repeats"].eq(15).all()
    assert ours["baseline"].eq("numpy").all()
    assert ((ours["low_s"] <= ours["median_s"]) & (ours["median_s"] <= ours["high_s"])).all()
    assert ours["speedup"].round(1).isin([0.5, 4.0]).mean() > 0.8
    np.testing.assert_allclose(ours["gflops"], ours["flops"] / ours["median_s"] / 1e9)
    absent = frame[frame["implementation"] == "jax"]
    assert absent["status"].eq("absent").all()
    assert absent[["median_s", "speedup", "gflops"]].isna().all(axis=None)
    assert absent["message"].eq("not installed").all()


def test_calls_to_pay(written):
    frame = pd.read_csv(written / "results.csv")
    ours = frame[frame["implementation"] == "numba-simd"]
    lost = ours["speedup"] < 1
    assert np.isinf(ours.loc[lost, "calls_to_pay"]).all()
    assert lost.sum() == 2
    assert frame.loc[frame["implementation"] == "numpy", "calls_to_pay"].isna().all()
    won = ours[~lost].iloc[0]
    compile_s = ours.loc[ours["operation"] == won["operation"], "compile_s"].max()
    assert won["calls_to_pay"] == pytest.approx(compile_s / (won["median_s"] * (won["speedup"] - 1)))


def test_the_files_are_there(written):
    names = {path.name for path in (written / "charts").iterdir()}
    stems = [
        "compile-time",
        "speedup-overview",
        "speedup-over-numpy",
        "speedup-over-fastest-other",
        "time-against-hidden-size",
        "time-against-sequence-length",
    ]
    assert names == {f"{stem}.{end}" for stem in stems for end in ("png", "svg")}


def test_losses_are_said_first(written):
    text = text_of(written / "report.html")
    assert "numba-simd is slower than" in text
    assert text.index("numba-simd is slower than") < text.index("Against NumPy it is")
    assert re.search(r"NumPy in 2 of 8 cases", text)
    assert "Where numba-simd is slower" in text
    assert "Faster in 6 and slower in 2." in text


def test_the_page_holds_what_it_must(written):
    text = text_of(written / "report.html")
    for words in (
        MACHINE["cpu"],
        "AVX-512",
        "What numba-simd does.",
        "jax (not installed)",
        "params.U",
        "8 * eps(dtype) * sqrt(n)",
        "Time against hidden size",
        "Time against sequence length",
        "Compiling, and when it has paid for itself",
        "openblas 0.3.30 SkylakeX",
        "python -m bench run --preset synthetic",
        FASTEST,
    ):
        assert words in text


def test_the_page_needs_no_network(written):
    page = (written / "report.html").read_text(encoding="utf-8")
    links = re.findall(r'(?:src|href)="([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)
    assert all(link.startswith(("#", "data:")) for link in links)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    references = re.findall(r'href="#([^"]+)"', page) + re.findall(r"url\(#([^)]+)\)", page)
    assert set(references) <= set(ids)


def test_markdown_is_ready_to_paste(written):
    text = (written / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert "numba-simd is slower than" in text
    assert "| numba-simd against | Times as fast |" in text
    assert MACHINE["cpu"] in text
    for table_lines in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE):
        assert len({line.count("|") for line in table_lines.strip().splitlines()}) == 1


def test_nowhere_slower_is_said(tmp_path):
    text = text_of(write([make_run(tmp_path / "run", **TINY)], tmp_path / "run"))
    assert "numba-simd is slower than none of the others in any case." in text
    assert "Where numba-simd is slower" not in text


def test_duels_pair_ours_with_each_other_and_with_the_fastest(tmp_path):
    run = make_run(tmp_path / "run", noise=0.001, **SMALL)
    found = duels([run], "numba-simd").groupby("against")["speedup"].mean()
    expected = {"numpy": 4, "numba-jit": 4 / 1.3, "torch": 5, FASTEST: 4 / 1.3}
    assert found.to_dict() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    "odd",
    [
        {"hidden_size": [16], "seq_len": [1], "batch_size": [1], "operation": ["forward"]},
        {"hidden_size": [16, 64], "seq_len": [10], "speedups": {"numpy": 1.0}},
        {"hidden_size": [16, 64], "seq_len": [10], "speedups": {"numba-simd": 4.0}},
        {"hidden_size": [16], "seq_len": [10, 50], "speedups": {"numpy": 1.0, "torch": 0.8}, "rounds": 1},
        {"hidden_size": [16], "seq_len": [10], "speedups": {}, "absent": ["jax"]},
        {"hidden_size": [16], "seq_len": [10], "speedups": {}},
        {"hidden_size": [16], "seq_len": [10], "speedups": {"numpy": 1.0, "my own": 2.0}},
        {"hidden_size": [16, 64], "seq_len": [10], "dtype": ["float32", "float64"], "threads": [1, 2]},
    ],
    ids=["one case", "numpy alone", "no baseline", "one round", "nothing ok", "no rows", "a stranger", "all vary"],
)
def test_odd_runs_have_a_report(tmp_path, odd):
    run = make_run(tmp_path / "run", **({"operation": ["forward_step", "train"], "batch_size": [1]} | odd))
    text = text_of(write([run], run.folder))
    assert not re.search(r"\bnan\b", text)
    assert (run.folder / "report.md").read_text(encoding="utf-8")
    assert len(pd.read_csv(run.folder / "results.csv")) == len(run.rows)


def test_wrong_and_failed_rows_are_listed_and_warned_of(tmp_path):
    run = make_run(tmp_path / "run", **SMALL)
    torch = [row for row in run.rows if row["implementation"] == "torch"]
    torch[0].update(status="wrong", message="hs: error 1, bound 0.1", times=[], max_error=None)
    torch[0]["errors"] = {"hs": {"error": None, "bound": 0.1}}
    torch[1].update(status="error", message="the worker died <here>", times=[], compile_s=None, errors={})
    run.info["finished"] = None
    page = write([run], tmp_path / "run")
    text = text_of(page)
    assert "torch gave wrong results in 1 case, which" in text
    assert "torch failed in 1 case, which" in text
    assert "not finished: this is what it has so far" in text
    assert "the worker died <here>" in text
    assert "<here>" not in page.read_text(encoding="utf-8")
    assert "not finite" in text


def test_runs_merge_and_the_last_one_counts(tmp_path):
    first = make_run(tmp_path / "first", seed=1, **TINY)
    second = make_run(tmp_path / "second", seed=2, **TINY | {"hidden_size": [64, 256]})
    frame = table([first, second])
    assert len(frame) == 3 * 4
    assert frame.loc[frame["hidden_size"] == 64, "run"].eq("second").all()
    assert frame.loc[frame["hidden_size"] == 16, "run"].eq("first").all()
    text = text_of(write([first, second], tmp_path / "merged"))
    assert "first" in text
    assert "second" in text


def test_machines_are_kept_apart(tmp_path):
    here = make_run(tmp_path / "here", **TINY)
    there = make_run(tmp_path / "there", machine={"cpu": "Other", "simd": None}, **TINY)
    assert len(table([here, there])) == 2 * 2 * 4
    text = text_of(write([here, there], tmp_path / "merged"))
    assert "on Imaginary 9000 16-Core Processor, 16 cores, AVX-512 it is" in text
    assert "on Other, 16 cores it is" in text


CHECK = """
<script>
addEventListener("load", () => setTimeout(() => {
  const table = document.getElementById("rows");
  const heading = name => [...table.tHead.rows[0].cells].find(cell => cell.textContent === name);
  const column = name => [...table.tBodies[0].rows].map(
    row => row.cells[heading(name).cellIndex].dataset.value ?? row.cells[heading(name).cellIndex].textContent);
  const click = name => { heading(name).querySelector("button").click(); return column(name); };
  const box = document.querySelector("input[data-filters=rows]");
  const result = {width: innerWidth, content: document.documentElement.scrollWidth};
  result.up = click("Time"); result.down = click("Time"); result.names = click("Implementation");
  box.value = "torch train"; box.dispatchEvent(new Event("input"));
  result.left = [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => row.textContent);
  result.count = document.getElementById("rows-count").textContent;
  result.dark = getComputedStyle(document.body).backgroundColor;
  result.errors = errors;
  parent.postMessage(result, "*");
}, 100));
</script>
"""
CATCH = """
<script>
const errors = [];
addEventListener("error", event => errors.push(String(event.message)));
console.error = (...words) => errors.push(words.join(" "));
</script>
"""
FRAMES = """<!doctype html><meta name="color-scheme" content="light dark"><pre id="found"></pre><script>
const found = [];
addEventListener("message", event => {
  found.push(event.data);
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>
<iframe src="checked.html" width="375" height="800"></iframe><iframe src="checked.html" width="1440" height="800">
</iframe>
"""


@pytest.fixture
def in_browser(tmp_path):
    """Return a function that opens a page at 375 and 1440 px and returns what `CHECK` saw of it."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip("no Chromium found: the page was not looked at in a browser")

    def look(page, scheme):
        text = (
            page.read_text(encoding="utf-8").replace("<head>", f"<head>{CATCH}").replace("</body>", f"{CHECK}</body>")
        )
        (tmp_path / "checked.html").write_text(text, encoding="utf-8")
        (tmp_path / "frames.html").write_text(FRAMES, encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"]
        command += ["--disable-background-networking", "--window-size=1500,900", "--virtual-time-budget=20000"]
        command += [f"--user-data-dir={tmp_path / 'profile'}"]
        command += [f"--blink-settings=preferredColorScheme={['dark', 'light'].index(scheme)}"]
        command += [(tmp_path / "frames.html").as_uri()]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        found = re.search(r'<pre id="found">(.+?)</pre>', shown, flags=re.DOTALL)
        assert found, shown
        return sorted(json.loads(unescape(found[1])), key=lambda result: result["width"])

    return look


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(written, in_browser, scheme):
    results = in_browser(written / "report.html", scheme)
    assert [result["width"] for result in results] == [375, 1440]
    for result in results:
        assert result["errors"] == []
        assert result["content"] <= result["width"]
        timed = [float(value) for value in result["up"] if value]
        assert timed == sorted(timed)
        assert len(timed) == 32
        assert set(result["up"][32:]) == set(result["down"][32:]) == {""}
        assert result["down"][:32] == result["up"][:32][::-1]
        assert result["names"] == sorted(result["names"])
        assert len(result["left"]) == 4
        assert all("torch" in row and "train" in row for row in result["left"])
        assert result["count"] == "4 of 40 rows"
        assert result["dark"] == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]
