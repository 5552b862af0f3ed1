"""The compiled code on disk: found by the next process, and never used for other sources."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.core.code import cache

ROOT = Path(__file__).parents[4]

# A kernel as small as it can be, in a module of the package, so that compiling it takes no time.
MODULE = """
from kernels.core.code.cache import compiled

@compiled
def double(x):
    return x + x
"""
PROGRAM = """
import sys
from kernels.probe import double
double(1.0)
stats = double.stats
sys.stdout.reconfigure(errors="surrogateescape")
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), stats.cache_path)
"""


@pytest.fixture
def checkout(tmp_path):
    """A copy of the package with the small kernel added to it."""
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "kernels" / "probe.py").write_text(MODULE)
    return tmp_path


def run(checkout, program=PROGRAM, **environment):
    """Call the kernel in a new process; return its cache's hits, misses and folder."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(checkout / "cache"), **environment}
    done = subprocess.run([sys.executable, "-c", program], cwd=checkout, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    hits, misses, folder = os.fsdecode(done.stdout).strip().split(" ", 2)
    return int(hits), int(misses), Path(folder)


def test_the_second_process_compiles_nothing(checkout):
    assert run(checkout)[:2] == (0, 1)
    assert run(checkout)[:2] == (1, 0)


def bare(checkout):
    """Leave byte code alone, where the sources were: `python -m compileall -b`, and these go."""
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-b", checkout / "kernels"], check=True)
    for source in (checkout / "kernels").rglob("*.py"):
        source.unlink()


def zipped(checkout):
    shutil.make_archive(checkout / "packed", "zip", checkout, "kernels")
    shutil.rmtree(checkout / "kernels")


def bare_and_zipped(checkout):
    bare(checkout)
    zipped(checkout)


@pytest.mark.parametrize("pack", [bare, zipped, bare_and_zipped])
def test_an_application_without_sources(checkout, pack):
    """Compiled, kept, and compiled anew where the byte code is another."""
    program = f"import sys\nsys.path.insert(0, 'packed.zip')\nimport kernels.stack\n{PROGRAM}"
    shutil.copytree(checkout / "kernels", checkout / "first" / "kernels")
    pack(checkout)
    hits, misses, folder = run(checkout, program)
    assert (hits, misses) == (0, 1)
    assert run(checkout, program) == (1, 0, folder)
    shutil.rmtree(checkout / "kernels", ignore_errors=True)
    shutil.move(checkout / "first" / "kernels", checkout / "kernels")
    (checkout / "kernels" / "probe.py").write_text(MODULE.replace("x + x", "2 * x"))
    pack(checkout)
    hits, misses, other = run(checkout, program)
    assert (hits, misses) == (0, 1)
    assert other != folder


def test_an_application_in_one_program(monkeypatch, tmp_path):
    """As PyInstaller packs it: modules are in no file, and unpacked nowhere."""
    program = tmp_path / "program"
    monkeypatch.setattr(sys, "executable", str(program))
    found = []
    for content in (b"one", b"two"):
        program.write_bytes(content)
        found += [cache._digest(tmp_path / place / "kernels") for place in ("_MEI1", "_MEI2")]
    assert found[0] == found[1] != found[2] == found[3]


@pytest.mark.parametrize("source", ["probe.py", "core/doors/checks.py"])
def test_a_change_of_any_source_has_a_folder_of_its_own(checkout, source):
    """checks.py stands for a file that the kernel's own only imports: Numba alone would not look at it."""
    *_, first = run(checkout)
    path = checkout / "kernels" / source
    path.write_text(path.read_text() + "\n# changed\n")
    hits, misses, second = run(checkout)
    assert (hits, misses) == (0, 1)
    assert second != first


def test_a_change_of_a_cell_has_what_lies_below_it_compiled_anew(checkout):
    """What is compiled in core takes the cell's own code in, by overloads for its type."""
    (checkout / "kernels" / "core" / "walks" / "probe.py").write_text(MODULE)
    program = PROGRAM.replace("kernels.probe", "kernels.core.walks.probe")
    *_, first = run(checkout, program)
    path = checkout / "kernels" / "lstm.py"
    path.write_text(path.read_text() + "\n# changed\n")
    hits, misses, second = run(checkout, program)
    assert (hits, misses) == (0, 1)
    assert second != first


PARTS = f"""{MODULE}
@compiled
def quadruple(x):
    return double(double(x))
"""


def with_parts(checkout, calls):
    """Return the PROGRAM that calls a function and another one that calls it."""
    (checkout / "kernels" / "probe.py").write_text(PARTS)
    return PROGRAM.replace("import double", "import double, quadruple").replace("double(1.0)", calls)


def test_what_is_a_part_of_another_function_is_kept_with_it_and_compiled_as_a_whole_for_python(checkout):
    """Python calls the part before and after the other, in one process and in the next."""
    calls = "assert (quadruple(1.0), double(3.0), quadruple(2.0), double(2), quadruple(2)) == (4, 6, 8, 4, 8)"
    program = with_parts(checkout, calls)
    assert run(checkout, program)[:2] == (0, 3)  # of `double`: a part, and a whole of each type
    assert run(checkout, program)[:2] == (2, 0)


def test_threads_that_compile_at_once_do_not_take_parts_for_wholes(checkout):
    calls = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    jobs = [pool.submit(f, x) for x in (1, 1.0, True, 1j) for f in (quadruple, double) * 4]
    assert [job.result() for job in jobs] == [y for x in (1, 1.0, True, 1j) for y in (4 * x, 2 * x) * 4]
"""
    run(checkout, with_parts(checkout, calls))


def test_the_compiled_reference_outlives_changes_of_the_kernels(checkout):
    """It takes longest to compile, and does not know the kernels."""
    (checkout / "outside").mkdir()
    (checkout / "outside" / "probe.py").write_text(MODULE)
    program = PROGRAM.replace("kernels.probe", "outside.probe")
    *_, first = run(checkout, program)
    (checkout / "kernels" / "core" / "doors" / "checks.py").write_text("# changed\n")
    assert run(checkout, program) == (1, 0, first)


def test_the_folder_is_the_users(checkout):
    assert run(checkout)[2].is_relative_to(checkout / "cache")
    home = {"NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": str(checkout / "xdg")}
    assert run(checkout, **home)[2].is_relative_to(checkout / "xdg" / "unrolled")


@pytest.fixture
def homeless(checkout):
    """An environment in which nothing can be kept but in TMPDIR: there is a file in the home's place."""
    (checkout / "file").touch()
    (checkout / "tmp").mkdir()
    file, tmp = str(checkout / "file"), str(checkout / "tmp")
    return {"NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": file, "HOME": file, "TMPDIR": tmp}


def beside_the_sources(checkout):
    return list((checkout / "kernels").rglob("*.nb[ic]"))


def test_without_a_home_code_is_kept_in_tmpdir(checkout, homeless):
    hits, misses, folder = run(checkout, **homeless)
    assert (hits, misses) == (0, 1)
    mine = checkout / "tmp" / f"unrolled-{os.getuid()}"
    assert folder.is_relative_to(mine)
    assert mine.stat().st_mode & 0o777 == 0o700
    assert run(checkout, **homeless) == (1, 0, folder)
    assert beside_the_sources(checkout) == []


def test_a_folder_of_the_cache_that_cannot_be_written_is_passed_over(checkout, homeless):
    """As after a run as root: ~/.cache/unrolled can be written, and what is below it cannot."""
    homeless |= {"XDG_CACHE_HOME": str(checkout / "xdg")}
    *_, folder = run(checkout, **homeless)
    assert folder.is_relative_to(checkout / "xdg")
    shutil.rmtree(folder)
    folder.touch()
    assert run(checkout, **homeless)[2].is_relative_to(checkout / "tmp")


def test_where_nothing_can_be_kept_code_is_compiled_in_memory_with_one_warning(checkout, homeless):
    program = f"import tempfile\ntempfile.tempdir = {homeless['HOME']!r}\nimport kernels.rnn\n{PROGRAM}"
    environment = {**os.environ, **homeless}
    words = [sys.executable, "-W", "always", "-c", program]
    done = subprocess.run(words, cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "1", "None"], done.stderr
    assert done.stderr.count("RuntimeWarning: Compiled code cannot be kept for the next process") == 1
    assert beside_the_sources(checkout) == []


def test_an_unknown_user_has_no_home(monkeypatch):
    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("numba.config.CACHE_DIR", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    assert [path.name for path in cache._places()] == [f"unrolled-{os.getuid()}"]


def test_a_folder_that_others_may_write_is_not_trusted(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    assert cache._private(tmp_path / "mine") == tmp_path / "mine"
    for name in ("open", "link"):
        with pytest.raises(OSError, match=r"not this user's alone|exists"):
            cache._private(tmp_path / name)


@pytest.mark.parametrize("below", ["", "x"])
def test_a_numba_cache_dir_that_cannot_be_made_is_told_on_import(checkout, below):
    (checkout / "file").touch()
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(checkout / "file" / below)}
    words = [sys.executable, "-c", "import kernels.core.threads.team"]
    done = subprocess.run(words, cwd=checkout, env=environment, capture_output=True, text=True)
    line = done.stderr.splitlines()[-1]
    assert line.startswith("ImportError: NUMBA_CACHE_DIR: expected a folder that can be written, got '")
    assert beside_the_sources(checkout) == []


def test_a_damaged_file_is_written_anew(checkout):
    *_, folder = run(checkout)
    (file,) = folder.glob("*.nbc")
    file.write_bytes(file.read_bytes()[:20])
    assert run(checkout) == (0, 1, folder)
    assert run(checkout) == (1, 0, folder)


def test_a_file_cut_short_anywhere_or_with_zeros_in_it_is_compiled_anew(tmp_path):
    """A kernel's own code, cut at every KiB, and with a KiB of zeros there, as a loss of power leaves it."""
    program = f"""
from pathlib import Path
import numpy as np
from numba.core.registry import cpu_target
from kernels import rnn
from kernels.core.code.cache import _Entries

params, x = rnn.init_params(1, 3, np.random.default_rng(0)), np.ones((2, 1, 1), np.float32)
rnn.infer(params, x)
cache, [types] = rnn._infer._cache, rnn._infer.overloads
key = cache._index_key(types, cpu_target.target_context.codegen())
code = cache._cache_file._path(key).read_bytes()
cache._cache_file = _Entries({str(tmp_path)!r}, "base")

def load(data):
    cache._cache_file._path(key).write_bytes(data)
    return cache.load_overload(types, cpu_target.target_context)

assert load(code) is not None
places = range(0, len(code), 1024)
taken = [n for n in places if load(code[:n]) is not None]
for n in places:
    zeros = code[:n] + bytes(len(code[n : n + 1024])) + code[n + 1024 :]
    taken += [n] if zeros != code and load(zeros) is not None else []
print(len(places), taken)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    places, taken = done.stdout.split(" ", 1)
    assert int(places) > 50
    assert taken.strip() == "[]"


def test_processes_that_keep_code_for_different_types_at_once_lose_none_and_run_their_own(checkout):
    """All write when all have compiled: with Numba's own index they keep it in the same file."""
    values = ("1", "1.0", "1j", "True", "np.float32(1)", "np.int8(1)")
    program = f"""
import os, sys, time
import numpy as np
from kernels.core.code.cache import _Entries
from kernels.probe import double

save = _Entries.save

def save_together(self, key, payload):
    open(f"compiled {{os.getpid()}}", "w").close()
    deadline = time.monotonic() + 600
    while len([name for name in os.listdir() if name.startswith("compiled ")]) < {len(values)}:
        assert time.monotonic() < deadline
    save(self, key, payload)

_Entries.save = save_together
double(eval(sys.argv[1]))
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(checkout / "cache")}
    words = [sys.executable, "-c", program]
    at_once = [subprocess.Popen([*words, value], cwd=checkout, env=environment) for value in values]
    assert [one.wait(timeout=900) for one in at_once] == [0] * len(values)
    calls = "\n".join(f"assert double({value}) == 2 * {value}" for value in values)
    loaded = PROGRAM.replace("double(1.0)", calls).replace("import sys", "import sys\nimport numpy as np")
    assert run(checkout, loaded)[:2] == (len(values), 0)


def test_processes_that_compile_at_once_all_have_right_code_and_the_next_one_finds_it(checkout):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(checkout / "cache")}
    words = [sys.executable, "-c", "from kernels.probe import double\nprint(double(1.5), double(2), double(1j))"]
    at_once = [subprocess.Popen(words, cwd=checkout, env=environment, stdout=subprocess.PIPE) for _ in range(4)]
    for one in at_once:
        assert one.communicate(timeout=900)[0].decode().split() == ["3.0", "4", "2j"]
    assert run(checkout)[:2] == (1, 0)


def test_named_tuples_of_one_name_are_told_apart(checkout):
    """Their types have the same name, too, and x lies elsewhere in each."""
    (checkout / "kernels" / "probe.py").write_text(MODULE.replace("return x + x", "return x.x + x.x"))
    for module, fields in (("one", "x: float\n    y: float"), ("two", "y: float\n    x: float")):
        source = f"from typing import NamedTuple\n\nclass Params(NamedTuple):\n    {fields}\n"
        (checkout / "kernels" / f"{module}.py").write_text(source)
    both = [
        f"from kernels.{module} import Params\nassert double(Params(x=1.0, y=5.0)) == 2.0" for module in ("one", "two")
    ]
    program = PROGRAM.replace("double(1.0)", "{}")
    for calls, hits, misses in ((both[0], 0, 1), (both[1], 0, 1), ("\n".join(both), 2, 0)):
        assert run(checkout, program.format(calls))[:2] == (hits, misses)


def test_code_for_another_cpu_or_another_numba_is_not_taken(checkout):
    assert run(checkout)[:2] == (0, 1)
    assert run(checkout, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")[:2] == (0, 1)
    assert run(checkout, f"import numba\nnumba.__version__ = '0.0'\n{PROGRAM}")[:2] == (0, 1)
    assert run(checkout)[:2] == (1, 0)


def test_a_full_disk_ends_no_call(checkout):
    """A limit on the size of a file stands in for the disk."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(checkout / "cache")}
    words = [sys.executable, "-c", f"{limit}from kernels.probe import double\nprint(double(1.0), double(1))"]
    done = subprocess.run(words, cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["2.0", "2"], done.stderr
    assert done.stderr.count("RuntimeWarning: Compiled code cannot be kept") == 1


def test_the_lock_of_an_editor_is_no_source(checkout):
    (checkout / "kernels" / ".#probe.py").symlink_to("somebody@somewhere")
    assert run(checkout)[:2] == (0, 1)


def test_a_checkout_may_lie_anywhere(checkout):
    elsewhere = os.fsencode(checkout) + b"/a [b] \xc3\xbc \xff"
    try:
        shutil.copytree(checkout / "kernels", os.fsdecode(elsewhere) + "/kernels")
    except OSError:
        pytest.skip("paths are UTF-8 here")
    assert run(Path(os.fsdecode(elsewhere)))[:2] == (0, 1)
    assert run(Path(os.fsdecode(elsewhere)))[:2] == (1, 0)


def test_numba_disable_jit_leaves_the_reference_python_and_the_kernels_say_so():
    program = """
import numpy as np
from kernels import jit, rnn
params = jit.rnn.init_params(1, 2, np.random.default_rng(0))
x = np.ones((3, 1, 1), np.float32)
assert jit.rnn.infer(params, x).hs.shape == (3, 1, 2)
rnn.infer(params, x)
"""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    line = done.stderr.splitlines()[-1]
    assert line.startswith("NotImplementedError: NUMBA_DISABLE_JIT is set, but SIMD kernels cannot run as Python")


def test_the_kernels_are_cached():
    """The compiled reference, in two processes: what the first has compiled, the second loads."""
    program = """
import numpy as np
from kernels import jit
params = jit.rnn.init_params(1, 1, np.random.default_rng(0))
jit.rnn.forward_step(params, np.ones((1, 1), np.float32), jit.rnn.init_state(params, 1), "tanh")
stats = jit.rnn.forward_step.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"]


@pytest.mark.slow
def test_no_function_is_taken_for_another(tmp_path):
    """Numba tells functions of the same name and types apart by a number, which another process gives to another one.

    Here all have the same number, which is the worst that may come of several processes that fill one cache.
    """
    program = """
from itertools import repeat
from numba.core.bytecode import FunctionIdentity
assert next(FunctionIdentity._unique_ids) > 0
FunctionIdentity._unique_ids = repeat(1)

import numpy as np
import kernels.rnn, reference.rnn
from tests.kernels.compare import Size, check_bptt, check_forward
for size in Size(100, 8, 3, 15), Size(33, 1, 5, 1):  # panels of 1 to 3 vectors, tiles of 1 to 8 rows, and a lone row
    check_forward(kernels.rnn, reference.rnn, size, np.float32)
    check_bptt(kernels.rnn, reference.rnn, size, np.float32, None)
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
