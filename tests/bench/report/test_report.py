"""The report of made-up runs: its words, its files, and the page in a real browser."""

import json
import re
import shutil
import subprocess
from html import unescape

import pandas as pd
import pytest

from bench.report import report
from bench.results.formats import times
from bench.results.tables import FASTEST, Facts
from tests.bench.synthetic import MACHINE, SPEEDUPS, make_run

SMALL = {"operation": ["forward", "train"], "hidden_size": [16, 64], "seq_len": [10, 50], "batch_size": [1]}
TINY = SMALL | {"operation": ["forward"], "seq_len": [10]}
CELLS = SMALL | {"cell": ["rnn", "gru", "lstm"], "threads": [1, 2]}


def losing(row):
    return 0.5 if row["hidden_size"] == 16 and row["operation"] == "train" else 4.0


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    run = make_run(folder, speedups=SPEEDUPS | {"numba-simd": losing}, absent=["jax"], **CELLS)
    report.write([run], folder)
    return folder


def text_of(html):
    """Return what a reader of the page sees, tags aside."""
    body = html.split("<body>")[1].split("<script>")[0]
    body = re.sub(r"<svg.*?</svg>|<script.*?</script>", "", body, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body)))


@pytest.fixture(scope="module")
def text(written):
    return text_of((written / "report.html").read_text(encoding="utf-8"))


def test_the_files_are_there(written):
    names = {path.name for path in (written / "charts").iterdir()}
    stems = [
        "compile-time",
        "roofline",
        "speedup-overview",
        "speedup-over-numpy",
        "speedup-over-fastest-other",
        "threads",
        "time-against-hidden-size",
        "time-against-sequence-length",
    ]
    assert names == {f"{stem}.{end}" for stem in stems for end in ("png", "svg")}
    assert len(pd.read_csv(written / "results.csv")) == 3 * 2 * 8 * 5


def test_losses_are_said_first(text):
    assert text.index("numba-simd is slower than") < text.index("Against NumPy it is")
    assert re.search(r"NumPy in 12 of 48 cases", text)
    assert "Where numba-simd is slower" in text
    assert "Faster in 36 and slower in 12." in text


def test_the_page_holds_what_it_must(text):
    for words in (
        MACHINE["cpu"],
        "AVX-512",
        "What numba-simd does.",
        "jax (not installed)",
        "params.U",
        "8 * eps(dtype) * sqrt(n)",
        "Time against hidden size",
        "Time against sequence length",
        "Scaling with threads",
        "With 2 threads in place of 1, the geometric means of times as fast: numba-simd",
        "Compiling, and when it has paid for itself",
        "openblas 0.3.30 SkylakeX",
        "python -m bench run --preset synthetic",
        "In the median case numba-simd reaches",
        "100 GFLOP/s",
        "How much is left",
        FASTEST,
        "LSTM 1.83× (12–0–4) 2.4× (12–0–4)",
        "192 rows ended by precision, 0 by time",
    ):
        assert words in text


def test_what_charts_leave_out_is_said(text):
    assert "Shown: 1 thread; all the rest is in the table of all rows." in text


def test_the_page_needs_no_network(written):
    page = (written / "report.html").read_text(encoding="utf-8")
    links = re.findall(r'(?:src|href)="([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)
    assert all(link.startswith(("#", "data:")) for link in links)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    references = re.findall(r'href="#([^"]+)"', page) + re.findall(r"url\(#([^)]+)\)", page)
    assert set(references) <= set(ids)


def test_the_details_of_a_row_hold_all_that_is_known(written):
    page = (written / "report.html").read_text(encoding="utf-8")
    details = json.loads(re.search(r'id="rows-details">(.*?)</script>', page)[1])
    frame = pd.read_csv(written / "results.csv")
    assert len(details) == len(frame)
    known, row = details[2], frame.loc[2]
    assert list(known["fields"])[:2] == ["Case", "Implementation"]
    assert known["fields"]["Implementation"] == "numba-simd 1.0"
    assert known["fields"]["How much is left"] == times(row["left"])
    assert known["fields"]["Rounds"] == "15"
    assert len(known["rounds"]) == 15
    assert known["errors"]["hs"] == ["1.0e-06", "1.0e-05"]


def test_markdown_is_ready_to_paste(written):
    text = (written / "report.md").read_text(encoding="utf-8")
    title, line = text.split("\n\n")[:2]
    assert title.startswith("# ")
    assert line.startswith("**Unrolled**: numba-simd is 2.")
    assert MACHINE["cpu"] in line
    assert "numba-simd is slower than" in text
    assert "| numba-simd against | Times as fast |" in text
    for table_lines in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE):
        assert len({line.count("|") for line in table_lines.strip().splitlines()}) == 1


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
    facts = Facts([run])
    assert not re.search(r"\bnan\b", text_of(report.html(facts)))
    assert report.markdown(facts)


def test_wrong_and_failed_rows_are_listed_and_warned_of(tmp_path):
    run = make_run(tmp_path / "run", **TINY)
    torch = [row for row in run.rows if row["implementation"] == "torch"]
    torch[0].update(status="wrong", message="hs: error 1, bound 0.1", times=[], max_error=None)
    torch[0]["errors"] = {"hs": {"error": None, "bound": 0.1}}
    torch[1].update(status="error", message="the worker died <here>", times=[], compile_s=None, errors={})
    run.info["finished"] = None
    page = report.html(Facts([run]))
    text = text_of(page)
    assert "torch gave wrong results in 1 case, which" in text
    assert "torch failed in 1 case, which" in text
    assert "not finished: this is what it has so far" in text
    assert "the worker died <here>" in text
    assert "<here>" not in page
    assert "not finite" in text


def test_machines_are_kept_apart(tmp_path):
    here = make_run(tmp_path / "here", **TINY)
    there = make_run(tmp_path / "there", machine={"cpu": "Other", "simd": None}, **TINY)
    text = text_of(report.html(Facts([here, there])))
    assert "on Imaginary 9000 16-Core Processor, 16 cores, AVX-512 it is" in text
    assert "on Other, 16 cores it is" in text
    for name in ("here", "there"):
        assert f"Run {name}" in text


CHECK = """
<script>
addEventListener("load", () => setTimeout(() => {
  const table = document.getElementById("rows");
  const heading = name => [...table.tHead.rows[0].cells].find(cell => cell.textContent === name);
  const column = name => [...table.tBodies[0].rows].map(
    row => row.cells[heading(name).cellIndex].dataset.value ?? row.cells[heading(name).cellIndex].textContent);
  const click = name => { heading(name).querySelector("button").click(); return column(name); };
  const form = document.querySelector("form[data-filters=rows]"), box = form.querySelector("input");
  const shown = () => [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => row.textContent);
  const choose = (name, value) => {
    form.querySelector(`select[data-column="${name}"]`).value = value;
    form.dispatchEvent(new Event("input"));
  };
  const result = {width: innerWidth, content: document.documentElement.scrollWidth};
  result.up = click("Time"); result.down = click("Time"); result.names = click("Implementation");
  box.value = "torch train"; form.dispatchEvent(new Event("input"));
  result.left = shown();
  choose("Cell", "gru"); choose("Threads", "2");
  result.chosen = shown(); result.count = form.querySelector("output").textContent;
  const row = [...table.tBodies[0].rows].find(row => !row.hidden), dialog = document.getElementById("rows-dialog");
  row.querySelector("button").click();
  result.details = dialog.textContent; result.rounds = dialog.querySelectorAll("circle").length;
  result.dialog = dialog.getBoundingClientRect().right;
  dialog.close();
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
        assert len(timed) == 48 * 4
        assert set(result["up"][48 * 4 :]) == set(result["down"][48 * 4 :]) == {""}
        assert result["down"][: 48 * 4] == result["up"][: 48 * 4][::-1]
        assert result["names"] == sorted(result["names"])
        assert len(result["left"]) == 24
        assert all("torch" in row and "train" in row for row in result["left"])
        assert len(result["chosen"]) == 4
        assert all("gru" in row for row in result["chosen"])
        assert result["count"] == "4 of 240 rows"
        assert "GRU, train, float32, B = 1, 2 threads" in result["details"]
        assert "Error of each output, and its bound" in result["details"]
        assert result["rounds"] == 15
        assert result["dialog"] <= result["width"]
        assert result["dark"] == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]
