from bench.tasks.options import report_folder


def test_two_trainings_that_begin_at_once_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len({report_folder("sine", None) for _ in range(3)}) == 3
    assert report_folder("sine", tmp_path / "mine") == report_folder("sine", tmp_path / "mine")
