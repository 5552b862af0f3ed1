"""Real schedulers and workers of Dask on this machine, under several names: each told a lock of its own, it is one."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest

from bench.machine import peaks
from bench.results.runs import Run
from bench.tasks.learning.checkpoint import load_training
from bench.timing.worker import ROOT
from kernels.core.code.cache import base_folder
from tests.bench.synthetic import ROOFLINE

pytest.importorskip("distributed")

from bench.fleet.fleet import TLS, connect
from bench.grid.cases import ChoiceError

GRID = """
implementations = ["numpy"]
[effort]
round_s = 0.02
fewest = {rounds}
[[grids]]
hidden = [4, 6]
batch = [1]
operation = ["forward", "train"]
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder of what is kept, with a roofline that no machine finds too low, so that none measures another one.

    Compiled code is that of all tests.
    """
    folder = tmp_path_factory.mktemp("cache")
    for compiled in (path for path in base_folder().iterdir() if path.is_dir()):
        (folder / compiled.name).symlink_to(compiled)
    beyond = [rate | {"gflops": 1e6} for rate in ROOFLINE["rates"]]
    (folder / peaks._path().name).write_text(json.dumps(ROOFLINE | {"rates": beyond}))
    return folder


class Cluster:
    """A scheduler and workers, each a process, that all end with the test."""

    def __init__(self, folder, cache, tls=()):
        self.folder, self.cache, self.tls, self.processes = folder, cache, tls, []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"{'tls' if tls else 'tcp'}://127.0.0.1:{port}"
        self._start("scheduler", "--host", f"{'tls://' if tls else ''}127.0.0.1", "--port", str(port))

    def worker(self, name, lock=None, cwd=ROOT, **environment):
        """Start a worker; those of one lock are on one machine."""
        lock = self.folder / f"{lock or name}.lock"
        words = (self.address, "--no-dashboard", "--no-nanny", "--nthreads", "2", "--local-directory", self.folder)
        return self._start("worker", *words, cwd=cwd, UNROLLED_LOCK=str(lock), **environment)

    def _start(self, kind, *words, cwd=ROOT, **environment):
        code = f"import sys; sys.path.insert(0, {str(cwd)!r}); from distributed.cli.dask_{kind} import main; main()"
        with (self.folder / f"{kind}-{len(self.processes)}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", code, *map(str, words), *map(str, self.tls)],
                cwd=self.folder,
                env=os.environ | {"NUMBA_CACHE_DIR": str(self.cache)} | environment,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path, cache):
    cluster = Cluster(tmp_path, cache)
    yield cluster
    cluster.close()


def start(cluster, *words, seconds=0.3):
    grid = cluster.folder / "grid.toml"
    grid.write_text(GRID.format(rounds=int(seconds / 0.02)))
    command = [sys.executable, "-m", "bench", "run", "--scheduler", cluster.address, "--preset", grid]
    command += ["--reports", cluster.folder / "reports", *words]
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=-1, stderr=-1, text=True)


def run(cluster, *words, seconds=0.3):
    process = start(cluster, *words, seconds=seconds)
    out, err = process.communicate(timeout=900)
    return process.returncode, out, err


def runs(cluster):
    return [Run.load(path.parent) for path in sorted((cluster.folder / "reports").glob("*/rows.jsonl"))]


def wait_for(condition, seconds=900):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def rows_so_far(cluster):
    return [line for path in (cluster.folder / "reports").glob("*/rows.jsonl") for line in path.open()]


def far_ends(cluster):
    """Return the processes that measure for the cluster's workers."""
    found = []
    for process in cluster.processes:
        if process.poll() is None:
            found += psutil.Process(process.pid).children(recursive=True)
    return [process for process in found if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def whole(run):
    assert run.info["finished"]
    assert [row["message"] for row in run.rows if row["status"] != "ok"] == []
    assert Counter((row["operation"], row["hidden_size"]) for row in run.rows) == {
        (operation, H): 1 for operation in ("forward", "train") for H in (4, 6)
    }


def test_each_machine_measures_everything_into_a_run_of_its_own(cluster):
    cluster.worker("east")
    cluster.worker("west")
    cluster.worker("west again", lock="west")
    code, out, err = run(cluster)
    assert code == 0, err
    east, west = sorted(runs(cluster), key=lambda run: run.info["host"])
    here = socket.gethostname()
    assert [run.info["host"] for run in (east, west)] == [f"{here} east", f"{here} west"]
    for one in (east, west):
        whole(one)
        assert {row["host"] for row in one.rows} == {one.info["host"]}
        assert (one.folder / "report.html").exists()
    assert out.strip().endswith("-machines/report.html")
    page = (cluster.folder / "reports" / out.strip()).read_text()
    assert f"{here} east: " in page


def test_machines_that_are_alike_share_and_one_that_dies_loses_only_what_it_had_in_work(cluster):
    one = cluster.worker("east")
    cluster.worker("west")
    process = start(cluster, "--share", seconds=1)
    wait_for(lambda: len({json.loads(row)["host"] for row in rows_so_far(cluster)}) == 2)
    one.kill()
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    (shared,) = runs(cluster)
    whole(shared)
    assert "was lost in the midst of rnn-" in err


@pytest.mark.slow
def test_a_machine_that_is_back_goes_on(cluster):
    process = start(cluster, seconds=1)
    first = cluster.worker("east")
    wait_for(lambda: len(rows_so_far(cluster)) >= 1)
    first.kill()
    time.sleep(2)
    cluster.worker("east")
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    (only,) = runs(cluster)
    whole(only)
    assert "Waiting for a machine like" in err


BY_HAND = [pytest.param(how, marks=pytest.mark.slow) for how in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize("how", [signal.SIGKILL, *BY_HAND])
def test_a_client_that_ends_stops_the_far_ends_and_its_command_goes_on(cluster, how):
    cluster.worker("east")
    process = start(cluster, seconds=2)
    wait_for(lambda: len(rows_so_far(cluster)) >= 1)
    wait_for(lambda: len(far_ends(cluster)) >= 2)  # one that measures, and its worker
    process.send_signal(how)
    _, err = process.communicate(timeout=900)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[how]
    assert ("The same command goes on there." in err) == (how != signal.SIGKILL)
    wait_for(lambda: far_ends(cluster) == [])
    before = rows_so_far(cluster)
    code, _, err = run(cluster, seconds=2)
    assert code == 0, err
    assert "going on with" in err
    (only,) = runs(cluster)
    whole(only)
    assert rows_so_far(cluster)[: len(before)] == before


@pytest.mark.slow
def test_machines_with_other_source_or_none_are_named_and_not_mixed(cluster, tmp_path):
    copy = tmp_path / "copy"
    for name in ("bench", "kernels", "reference"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "kernels" / "rnn.py").open("a") as file:
        file.write("\n# another version\n")
    cluster.worker("other", cwd=copy)
    code, _, err = run(cluster)
    assert code == 2
    assert "error: --scheduler: expected machines that can take part, got " in err
    assert "other source, " in err

    cluster.worker("east")
    code, _, err = run(cluster)
    assert code == 0, err
    assert "Left out: " in err
    (only,) = runs(cluster)
    whole(only)
    assert only.info["host"].endswith(" east")


def test_machines_with_nothing_in_common_share_nothing(cluster, tmp_path):
    cluster.worker("east")
    older = tmp_path / "older" / "pandas-1.0.dist-info"
    older.mkdir(parents=True)
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: pandas\nVersion: 1.0\n")
    cluster.worker("west", PYTHONPATH=str(older.parent))
    code, _, err = run(cluster, "--share")
    assert code == 2
    assert "error: --share: expected machines that are alike, got none: they differ in versions" in err
    assert rows_so_far(cluster) == []


@pytest.mark.slow
def test_files_for_an_encrypted_connection_are_handed_to_dask(tmp_path, cache):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", key, "-out", cert], check=True, capture_output=True)
    tls = ("--tls-ca-file", cert, "--tls-cert", cert, "--tls-key", key)
    cluster = Cluster(tmp_path, cache, tls)
    try:
        cluster.worker("east")
        code, _, err = run(cluster, *tls)
        assert code == 0, err
        whole(*runs(cluster))
        code, _, err = run(cluster)
        assert code == 2
        assert "error: --scheduler: expected a Dask scheduler that answers, got tls://" in err
    finally:
        cluster.close()


def refused(*arguments):
    with pytest.raises(ChoiceError) as error:
        connect(*arguments)
    return str(error.value)


def test_a_scheduler_that_does_not_answer_is_one_line():
    expected = "--scheduler: expected a Dask scheduler that answers, got "
    assert refused("tcp://127.0.0.1:9").startswith(expected + "tcp://127.0.0.1:9 (")
    assert refused("no such thing") == "--scheduler: expected an address such as tcp://host:8786, got 'no such thing'"
    assert refused("tls://127.0.0.1:9", TLS("nowhere.pem")) == "--tls-ca-file: expected a PEM file, got nowhere.pem"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        assert refused(address) == f"{expected}{address} (no answer within 5 s)"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("run", "--share"),
            "--share, --tls-ca-file, --tls-cert, --tls-key: expected --scheduler beside them, got none",
        ),
        *(
            (
                (*command, "--scheduler", "tcp://127.0.0.1:9", "--no-wait"),
                "--no-wait: expected none beside --scheduler, whose machines wait for their turn",
            )
            for command in (("run",), ("train", "sine"))
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, said):
    done = subprocess.run([sys.executable, "-m", "bench", *words], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"error: {said}\n")


def train(cluster, *words):
    command = [sys.executable, "-m", "bench", "train", "sine", "--implementation", "numpy", "--hidden", "8"]
    command += ["--epochs", "3", "--seeds", "3", "--output", cluster.folder / "trained", *words]
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=-1, stderr=-1, text=True)


@pytest.mark.slow
def test_the_seeds_of_a_race_are_learned_on_several_machines_as_on_one(cluster, tmp_path):
    cluster.worker("east")
    cluster.worker("west")
    process = train(cluster, "--scheduler", cluster.address)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert out.strip().endswith("trained/report.html")
    far, _ = load_training(tmp_path / "trained", "sine")

    here = train(cluster, "--output", tmp_path / "here")
    _, err = here.communicate(timeout=900)
    assert here.returncode == 0, err
    near, _ = load_training(tmp_path / "here", "sine")

    def losses(about):
        (race,) = about["races"].values()
        return race["seeds_done"], [history["validation"] for history in race["histories"]["numpy"]]

    assert losses(far) == losses(near)


@pytest.mark.slow
def test_a_training_that_was_cut_short_goes_on_with_the_seeds_that_are_left(cluster, tmp_path):
    worker = cluster.worker("east")
    process = train(cluster, "--scheduler", cluster.address, "--seeds", "60", "--epochs", "20")
    wait_for((tmp_path / "trained" / "training.npz").exists)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 130, err
    about, _ = load_training(tmp_path / "trained", "sine")
    done = about["races"]["rnn"]["seeds_done"]
    assert 0 < done < 60
    assert worker.poll() is None

    command = ("-m", "bench", "train", "sine", "--resume", tmp_path / "trained", "--seeds", str(done + 2))
    again = [sys.executable, *map(str, command), "--scheduler", cluster.address]
    finished = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stderr
    about, _ = load_training(tmp_path / "trained", "sine")
    assert about["races"]["rnn"]["seeds_done"] == done + 2
