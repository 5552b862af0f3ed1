import json
import os
import resource
import zipfile

import numpy as np
import pytest

from bench.grid.cases import ChoiceError
from bench.tasks.learning import checkpoint
from bench.tasks.learning.checkpoint import load, save

ARRAYS = {"W": np.arange(6, dtype=np.float32).reshape(2, 3), "adam/steps": np.array(7), "none": np.zeros((0, 4))}


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "new" / "model.npz"
    save(path, "text model", {"alphabet": "\n 'é—", "state": 2**127}, ARRAYS)
    about, arrays = load(path, "text model")
    assert (about["alphabet"], about["state"]) == ("\n 'é—", 2**127)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    assert [file.name for file in path.parent.iterdir()] == ["model.npz"]


def test_a_training_is_kept_as_a_tree(tmp_path):
    tree = {"rnn": {"weights": {"numpy": {"W": ARRAYS["W"]}}}, "steps": np.array(3)}
    checkpoint.save_training(tmp_path, "sine", {"epoch": 2}, tree | {"none": {}})
    about, found = checkpoint.load_training(tmp_path, "sine")
    assert about["epoch"] == 2
    np.testing.assert_equal(found, tree)
    with pytest.raises(
        ChoiceError, match=r"expected a saved text training of format 1, got sine training of format 1$"
    ):
        checkpoint.load_training(tmp_path, "text")


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    save(path, "text model", {}, ARRAYS)
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        save(path, "text model", {}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["absent", "text", "cut", "foreign", "pickle"])
def test_what_is_no_checkpoint(tmp_path, kind):
    path = tmp_path / "model.npz"
    reason = "got a damaged file or one of another program"
    match kind:
        case "absent":
            reason = "No such file or directory"
        case "text":
            path.write_text("To be, or not to be")
        case "cut":
            save(path, "text model", {}, ARRAYS)
            path.write_bytes(path.read_bytes()[:-10])
        case "foreign":
            np.savez(path, W=np.zeros(3))
        case "pickle":
            np.savez(path, about=np.array({"format": 1}, dtype=object))
    with pytest.raises(ChoiceError) as raised:
        load(path, "text model")
    message = str(raised.value)
    assert message.startswith(f"{path}: expected a saved text model")
    assert message.endswith(reason)
    assert "\n" not in message


def test_a_flipped_byte_is_found_or_harmless(tmp_path):
    path = tmp_path / "model.npz"
    save(path, "text model", {"alphabet": "abc"}, ARRAYS)
    whole = path.read_bytes()
    ref, found = load(path, "text model"), 0
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            comp = load(path, "text model")
        except ChoiceError:
            found += 1
            continue
        assert comp[0] == ref[0]
        for name, array in ref[1].items():
            np.testing.assert_array_equal(comp[1][name], array, err_msg=f"byte {at}")
    assert found > len(whole) / 6


@pytest.mark.parametrize("changed", [{"format": 2}, {"kind": "sine training"}])
def test_another_format_or_kind_is_named(tmp_path, changed):
    path = tmp_path / "model.npz"
    about = {"format": checkpoint.FORMAT, "kind": "text model"} | changed
    arrays = {"about": np.array(json.dumps(about))}
    np.savez(path, checksum=checkpoint._checksum(arrays), **arrays)  # type: ignore[arg-type]
    with pytest.raises(ChoiceError, match=f"got {about['kind']} of format {about['format']}$"):
        load(path, "text model")


def test_a_file_that_would_take_more_memory_than_it_is_long_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    save(path, "text model", {}, ARRAYS)
    np.savez_compressed(path, **dict(np.load(path)), bomb=np.zeros(10**6))
    monkeypatch.setattr(np, "load", lambda *arguments, **options: pytest.fail("it was read"))
    with pytest.raises(ChoiceError, match="got a damaged file"):
        load(path, "text model")
    with zipfile.ZipFile(path, "w") as archive:  # a header that claims more than there is
        claimed = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        with archive.open("W.npy", "w") as file:
            np.lib.format.write_array_header_1_0(file, claimed)  # type: ignore[arg-type]
    with pytest.raises(ChoiceError, match="got a damaged file"):
        load(path, "text model")


def test_what_a_full_disk_cannot_hold_is_named_and_the_file_before_it_kept(tmp_path):
    path = tmp_path / "training.npz"
    save(path, "text model", {}, ARRAYS)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*training\.npz"):
            save(path, "text model", {}, ARRAYS | {"more": np.zeros(10**6)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model.npz")
    with pytest.raises(ChoiceError, match=r"got a damaged file or one of another program$"):
        load(tmp_path / "model.npz", "text model")


def test_names_that_are_array_and_branch_at_once(tmp_path):
    save(tmp_path / "training.npz", "sine training", {}, {"a": np.zeros(1), "a/b": np.zeros(1)})
    with pytest.raises(ChoiceError, match=r"training\.npz: expected one array of a name, got a/b$"):
        checkpoint.load_training(tmp_path, "sine")
