"""The report of made-up runs: its words, its files, and the page in a real browser."""

import json
import re
import resource
import shutil
import subprocess
from collections import Counter
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape

from bench.report import report
from bench.results.formats import times
from bench.results.runs import Run
from bench.results.tables import FASTEST, Facts
from tests.bench.synthetic import LOW, MACHINE, ROOFLINE, SPEEDUPS, make_run

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
        "4 * max |reference that errs - reference|",
        "Time against hidden size",
        "Time against sequence length",
        "Scaling with threads",
        "With 2 threads in place of 1, the geometric means (the least and the most",
        "of times as fast: numba-simd",
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
        {"hidden_size": [16], "seq_len": [10], "wrong": ["numpy", "numba-jit", "numba-simd", "torch"]},
        {"hidden_size": [16], "seq_len": [10], "wrong": ["numpy"]},
        {"hidden_size": [16, 64], "seq_len": [10], "noise": 0, "drift": 0, "speedups": dict.fromkeys(SPEEDUPS, 1.0)},
    ],
    ids=[
        "one case",
        "numpy alone",
        "no baseline",
        "one round",
        "nothing ok",
        "no rows",
        "a stranger",
        "all vary",
        "all wrong",
        "a wrong baseline",
        "all the same",
    ],
)
def test_odd_runs_have_a_report(tmp_path, odd):
    wrong, grid = odd.get("wrong", []), {name: value for name, value in odd.items() if name != "wrong"}
    run = make_run(tmp_path / "run", **({"operation": ["forward_step", "train"], "batch_size": [1]} | grid))
    for row in run.rows:
        if row["implementation"] in wrong:
            row.update(status="wrong", message="hs: error 1, bound 0.1", times=[], max_error=None, compile_s=None)
    facts = Facts([run])
    assert not re.search(r"\bnan\b", text_of(report.html(facts)))
    assert not re.search(r"\bnan\b", report.markdown(facts))


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
def dom(tmp_path):
    """Return a function that opens a page in a browser and returns its elements as they are once its scripts ran."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip("no Chromium found: the page was not looked at in a browser")

    def look(page, *options):
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"]
        command += ["--disable-background-networking", "--window-size=1500,900", "--virtual-time-budget=20000"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", *options, page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    return look


@pytest.fixture
def in_browser(dom, tmp_path):
    """Return a function that opens a page at 375 and 1440 px and returns what `CHECK` saw of it."""

    def look(page, scheme):
        text = (
            page.read_text(encoding="utf-8").replace("<head>", f"<head>{CATCH}").replace("</body>", f"{CHECK}</body>")
        )
        (tmp_path / "checked.html").write_text(text, encoding="utf-8")
        (tmp_path / "frames.html").write_text(FRAMES, encoding="utf-8")
        preferred = f"--blink-settings=preferredColorScheme={['dark', 'light'].index(scheme)}"
        shown = dom(tmp_path / "frames.html", preferred)
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


@pytest.mark.slow
def test_a_report_of_thousands_of_rows_opens(tmp_path, dom):
    """It takes 8 ms and 2.6 KB a row: 10,000 of them 84 s and 26 MB, and 15 s to open (`reports/measured.md`)."""
    grid = {"cell": ["rnn", "gru", "lstm"], "hidden_size": [2**n for n in range(10)], "seq_len": [1, 10, 100]}
    run = make_run(tmp_path / "run", rounds=6, **CELLS | grid | {"batch_size": [1, 8, 64]})
    report.write([run], run.folder)
    path = run.folder / "report.html"
    assert path.stat().st_size < 4000 * len(run.rows)
    (tmp_path / "checked.html").write_text(
        path.read_text(encoding="utf-8").replace("<head>", f"<head>{CATCH}"), "utf-8"
    )
    shown = dom(tmp_path / "checked.html")
    assert shown.count('<button type="button"') > len(run.rows) > 4000
    assert f"{len(run.rows)} rows" in shown


MARKUP = "\"'></script></style><script>ran()</script><img src=x onerror=ran()>`|[a](x:y)$x{{9}}"
MORE_MARKUP = f"{MARKUP}\n\n<h1>\n| --- |\n\u2028--><svg onload=ran()>\0"
FIXED = {
    "cell",
    "operation",
    "dtype",
    "lengths",
    "activation",
    "status",
    "started",
    "finished",
    "measured",
}  # their texts are not free
NAMES = {"name", "baseline", "implementation", "cpu", "model", "file"}


def marked(value, field=""):
    """Return what is in run.json or a row with markup in every text that is free, names of fields of a table too."""
    if isinstance(value, str) and field not in FIXED:
        return f"{value[:15]}{MARKUP if field in NAMES else MORE_MARKUP}"
    if isinstance(value, list):
        return [marked(item, field) for item in value]
    if isinstance(value, dict):
        named = field in ("implementations", "caches", "versions", "frequency_mhz", "levels", "bytes_per_s", "errors")
        return {
            f"{key}{MARKUP}" if named and key != "memory" else key: marked(item, key) for key, item in value.items()
        }
    return value


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """Return a folder with the report of two runs, "plain", and of the same with markup in all texts, "marked"."""
    folder = tmp_path_factory.mktemp("strangers")
    grid = TINY | {"speedups": {"base": 1.0, "ours": 4.0, "other": 0.8}, "absent": ["jax"]}
    machine = {"warnings": ["busy"], "frequency_mhz": {"now": 1}}
    runs = [
        make_run(folder / "here", threads=[1, 2], machine=machine, **grid),
        make_run(folder / "there", machine={"cpu": "another", "roofline": None}, **grid),
    ]
    runs[1].info["finished"] = None
    for run in runs:
        run.info["baseline"] = "base"
        run.info["model"] = {"file": "net.onnx", "left_out": {"odd": "peepholes"}}
        for row in run.rows:
            row["model"] = "layer"
        run.rows[1].update(status="wrong", message="off", times=[])
        run.rows[2].update(status="error", message="died", times=[])
    (folder / "plain").mkdir()
    (folder / "plain" / "report.html").write_text(report.html(Facts(runs)))
    (folder / "plain" / "report.md").write_text(report.markdown(Facts(runs)))
    for run in runs:
        (run.folder / "run.json").write_text(json.dumps(marked(run.info)))
        (run.folder / "rows.jsonl").write_text("".join(json.dumps(marked(row)) + "\n" for row in run.rows))
    report.write([Run.load(run.folder) for run in runs], folder / "marked")
    return folder


class Elements(HTMLParser):
    """What a page is made of: `found`, each element and attribute as often as it is there, figures aside."""

    def __init__(self, path):
        super().__init__()
        self.found = Counter()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.found.update([tag, *((tag, name) for name, _ in attrs)])
        assert all(value.startswith(("#", "data:")) for name, value in attrs if name.endswith(("href", "src")))


def test_markup_in_a_run_is_text_in_the_page(strangers):
    plain, marked = (Elements(strangers / name / "report.html").found for name in ("plain", "marked"))
    assert marked.keys() <= plain.keys()
    varied = {"path", "use", "g", "defs", "p"}  # drawn letters, and the paragraphs of a longer text
    alike = {of for of in plain if (of if isinstance(of, str) else of[0]) not in varied}
    assert {of: marked[of] for of in alike} == {of: plain[of] for of in alike}
    page = (strangers / "marked" / "report.html").read_text(encoding="utf-8")
    assert MARKUP not in page
    assert "<script>ran()" not in page
    assert str(escape(MARKUP)) in page


def test_markup_in_a_run_is_text_in_markdown(strangers):
    plain, marked = ((strangers / name / "report.md").read_text(encoding="utf-8") for name in ("plain", "marked"))
    assert "<" not in marked
    assert not re.search(r"(?<!\\)[`\[]", marked)
    for text in (plain, marked):  # as many lines, each with as many cells
        assert "\u2028" not in text
    cells = [[len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines()] for text in (plain, marked)]
    assert cells[0] == cells[1]


def test_markup_in_a_run_names_no_file(strangers):
    names = {path.name for path in (strangers / "marked" / "charts").iterdir()}
    assert all(re.fullmatch(r"[a-z0-9-]+\.(svg|png)", name) for name in names)
    assert {path.name for path in strangers.iterdir()} == {"here", "there", "plain", "marked"}


def test_a_run_that_links_to_other_folders_and_files_leaves_them_as_they_are(tmp_path):
    run = make_run(tmp_path / "run", **TINY)
    (tmp_path / "mine" / "charts").mkdir(parents=True)
    (tmp_path / "mine" / "page").write_text("mine")
    (run.folder / "charts").symlink_to(tmp_path / "mine" / "charts")
    for name in ("report.html", "report.md", "results.csv"):
        (run.folder / name).symlink_to(tmp_path / "mine" / "page")
    assert report.write([run], run.folder).stat().st_size > 1000
    assert list((run.folder / "charts").glob("*.png"))
    assert list((tmp_path / "mine" / "charts").iterdir()) == []
    assert (tmp_path / "mine" / "page").read_text() == "mine"


def test_no_script_of_a_run_is_run_by_a_browser(strangers, dom, tmp_path):
    page = (strangers / "marked" / "report.html").read_text(encoding="utf-8")
    page = page.replace("<head>", "<head><script>const ran = () => document.documentElement.id = 'ran';</script>")
    clicks = "for (const button of [...document.querySelectorAll('tr button')].slice(0, 99)) button.click();"
    page = page.replace("</body>", f"<script>{clicks} document.body.id = 'clicked';</script></body>")
    for name, text in (("safe.html", page), ("unsafe.html", page.replace("<h1>", f"<h1>{MARKUP}"))):
        (tmp_path / name).write_text(text, encoding="utf-8")
    shown = dom(tmp_path / "safe.html")
    assert 'id="clicked"' in shown
    assert 'id="ran"' not in shown
    assert 'id="ran"' in dom(tmp_path / "unsafe.html")


def test_runs_of_one_name_are_told_apart(tmp_path):
    runs = [make_run(tmp_path / n / "run", **TINY | {"hidden_size": [size]}) for n, size in (("a", 16), ("b", 64))]
    runs.append(make_run(tmp_path / "c" / "run", seed=1, **TINY))
    facts = Facts(runs)
    assert set(facts.rows["run"]) == {"run (3)"}  # of the same machine the last one counts
    assert "| Run | run | run (2) | run (3) |" in report.markdown(facts)
    page = report.html(facts)
    details = json.loads(re.search(r'id="rows-details">(.*?)</script>', page)[1])
    shown = [row["times"][0] for row in runs[2].rows]
    assert [known["rounds"][0] for known in details] == pytest.approx(shown, rel=1e-3)


@pytest.mark.parametrize(
    "torn",
    [
        None,
        {"rates": []},
        {"rates": [{"dtype": "float64", "threads": 1, "gflops": 1, "bytes_per_s": {"memory": 1}}]},
        {"rates": [{"dtype": "float32", "threads": 1, "gflops": 1, "bytes_per_s": {}}]},
        {"levels": {}},
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_roofline_that_lacks_something_is_a_report_without_it(tmp_path, torn):
    limits = torn and ROOFLINE | torn
    run = make_run(tmp_path / "run", machine={"roofline": limits}, **TINY)
    other = make_run(tmp_path / "other", machine={"cpu": "another"}, **TINY)
    page = report.html(Facts([Run.load(run.folder), Run.load(other.folder)]))
    assert not re.search(r"\bnan\b", text_of(page))


def test_a_measured_roofline_is_not_lost_to_a_later_run_without_one(tmp_path):
    runs = [make_run(tmp_path / "a", **TINY), make_run(tmp_path / "b", machine={"roofline": None}, **TINY)]
    assert list(Facts(runs).rooflines.values()) == [ROOFLINE]


def test_a_clock_that_was_set_back_is_no_negative_duration(tmp_path):
    run = make_run(tmp_path / "run", **TINY)
    run.info |= {"started": "2026-01-01T02:00:00", "finished": "2026-01-01T00:30:00+00:00"}
    assert re.search(r"\| Took \| (unknown: the clock was set back|\d+ \w+) \|", report.markdown(Facts([run])))
    run.info["started"] = "2026-01-01T01:00:00+00:00"
    assert "| Took | unknown: the clock was set back |" in report.markdown(Facts([run]))


def test_a_report_that_a_full_disk_cannot_hold_is_named_and_the_old_one_kept(tmp_path):
    run = make_run(tmp_path / "run", **TINY)
    report.write([run], run.folder)
    before = (run.folder / "report.md").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name, most in (("results.csv", 100), ("charts/speedup-overview.svg", 4000)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        try:
            with pytest.raises(OSError, match=f"File too large: .*/run/{name}"):
                report.write([run], run.folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (run.folder / "report.md").read_bytes() == before


def test_below_float32_the_loss_stands_beside_the_speedup(tmp_path):
    run = make_run(tmp_path / "run", noise=0, **TINY | LOW)
    report.write([run], tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    text = text_of(page)
    assert "Below float32: what it buys and what it costs" in text
    assert re.search(r"int8 numba-simd 0\.0075 0\.012 2\.5× 2\.5 – 2\.5 2 2 0 0", text)
    assert "Verdict Loss How much is left" in text
    details = json.loads(re.search(r'id="rows-details">(.*?)</script>', page)[1])
    assert "0.012" in {row["fields"]["Loss"] for row in details}
    summary = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "In int8 numba-simd is 2.5× as fast as its own float32" in summary
    assert "| int8 | numba-simd | 0.0075 | 0.012 | 2.5× | 2.5 – 2.5 | 2 | 2 | 0 | 0 |" in summary
    assert (tmp_path / "run" / "charts" / "below-float32.png").exists()


def test_a_run_without_a_dtype_below_float32_says_nothing_of_it(written, text):
    summary = (written / "report.md").read_text(encoding="utf-8")
    for words in ("what it buys and what it costs", "Loss", "loses at most", "AMX"):
        assert words not in text
        assert words not in summary


@pytest.mark.filterwarnings("error")
def test_a_roofline_that_was_measured_without_int8_is_no_obstacle(tmp_path):
    limits = ROOFLINE | {"rates": [rate for rate in ROOFLINE["rates"] if rate["dtype"] == "float32"]}
    run = make_run(tmp_path / "run", machine={"roofline": limits}, **TINY | LOW)
    page = text_of(report.html(Facts([run])))
    assert not re.search(r"\bnan\b", page)
    assert "Of the bound" not in page.split("All rows")[1].split("What each timing")[0].replace("Of the bound:", "")


def test_a_run_of_streams_tells_tails_and_misses(tmp_path):
    run = make_run(tmp_path / "run", operation=["stream"], batch_size=[1], seq_len=[1000], cell=["rnn", "lstm"])
    folder = report.write([run], tmp_path / "out").parent
    text = (folder / "report.md").read_text()
    assert "Of the steps of numba-simd back to back, 999 of 1,000 take no more than" in text
    assert "With a call every 1.00 ms, these were not done when the next one was due: numba-simd 6" in text
    html = (folder / "report.html").read_text()
    assert "A step at a time: the tail" in html
    assert "1 of 1,000" in html
    assert (folder / "charts" / "streams.png").exists()
    frame = pd.read_csv(folder / "results.csv")
    assert (frame["median_s"] < frame["p99_s"]).all()
    assert (frame["p99_s"] < frame["p999_s"]).all()
    assert frame["paced_calls"].eq(1000).all()
    np.testing.assert_allclose(
        frame["overhead_s"], frame["median_s"] - 3e-6 / frame["implementation"].map(SPEEDUPS) / 3
    )


def test_a_run_without_streams_says_nothing_of_them(tmp_path):
    folder = report.write([make_run(tmp_path / "run", operation=["forward"])], tmp_path / "out").parent
    assert "A step at a time" not in (folder / "report.html").read_text()
    assert "back to back" not in (folder / "report.md").read_text()
