"""The file that a table comes in: unpacked, known to be a text in UTF-8, or refused by the name of what it is."""

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn

from bench.grid.cases import ChoiceError

MOST_BYTES = 2**27  # of a table, unpacked
MOST_LINES = 2**22
PACKED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"PK\x03\x04": lambda file: _only_file(file),
}
BEGINNINGS = {  # what files of other kinds begin with
    b"PAR1": "a Parquet file",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Excel workbook (.xls) or another Office document",
    b"%PDF": "a PDF document",
    b"{\\rtf": "an RTF document",
    b"SQLite format 3\x00": "an SQLite database",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"CDF\x01": "a netCDF file",
    b"CDF\x02": "a netCDF file",
    b"ARROW1": "an Arrow or Feather file",
    b"FEA1": "a Feather file",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"\x28\xb5\x2f\xfd": "a file that zstd packed",
    b"\x04\x22\x4d\x18": "a file that lz4 packed",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"PK\x05\x06": "an empty zip archive",
    b"\x89PNG\r\n\x1a\n": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"\x7fELF": "a program",
    b"MATLAB 5.0 MAT-file": "a MATLAB file",
    b"<stata_dta>": "a Stata file",
    b"RDX2\n": "an R data file",
    b"RDX3\n": "an R data file",
    b"X\n\x00\x00\x00": "an R data file",
    b"$FL2": "an SPSS file",
    b"version https://git-lfs.github.com/spec/": "a Git LFS pointer; `git lfs pull` brings the file itself",
}
PATTERNS = {  # of texts and of what has no certain beginning
    rb"\x80[\x02-\x05][\x95}\](c]": "a pickle",
    rb"(?s).{257}ustar": "a tar archive",
    rb"(?s).{8}DUCK": "a DuckDB database",
    rb"\s*(<!--.*?-->\s*)*<(?i:!doctype html|html|head|body|table)\b": "a page of HTML, perhaps that of an error",
    rb"\s*<(\?xml\b|!DOCTYPE\b|[A-Za-z][\w:.-]*(\s+[\w:.-]+=\"[^\"]*\")*\s*/?>[ \r\n]*<)": "an XML file",
    rb"\s*(\{\s*(\"|\}\s*$)|\[\s*(\{|\[|\"|-?[0-9]|\]\s*$))": "a JSON file",
}
ARCHIVES = {  # files within a zip
    "xl/": "an Excel workbook (.xlsx)",
    "word/": "a Word document (.docx)",
    "ppt/": "a PowerPoint document (.pptx)",
    "content.xml": "an OpenDocument file (.ods)",
    "Index/": "a Numbers document",
}
DAMAGED = "it is packed, and damaged or locked"
# what a terminal obeys: the characters U+0000 to U+001F but for blanks, U+007F to U+009F, in UTF-8
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]|\xc2[\x80-\x9f]")


class KindError(ValueError):
    """A file is of another kind, which this names."""


class SizeError(ValueError):
    """A file holds more than a table, in words."""


def contents(path: Path) -> bytes:
    """Return the text of a file, which may be compressed, as UTF-8; a ChoiceError says what it is instead."""
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
        _expect_table(data)
        unpack = next((PACKED[start] for start in PACKED if data.startswith(start)), None)
        if unpack and len(data) <= MOST_BYTES:
            with unpack(io.BytesIO(data)) as inside:
                data = inside.read(MOST_BYTES + 1)
            _expect_table(data)
        if len(data) > MOST_BYTES or data.count(b"\n") > MOST_LINES:
            raise SizeError(f"it has more than {MOST_BYTES >> 20} MiB, or {MOST_LINES:,} lines")
    except FileNotFoundError:
        address = "; an address has to be downloaded first" if re.match("[a-z]+:/", str(path)) else ""
        raise ChoiceError(f"--csv: expected a file, found none at {path}{address}") from None
    except KindError as error:
        way_out = "" if ";" in str(error) else "; save its table as CSV"
        raise ChoiceError(f"--csv: expected a table of separated values, got {path}: {error}{way_out}") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, ValueError) as error:
        reason = error if isinstance(error, SizeError) else getattr(error, "strerror", None) or DAMAGED
        raise ChoiceError(f"--csv: expected a table that can be read, got {path}: {reason}") from None
    return _utf8(data, path)


def _utf8(data: bytes, path: Path) -> bytes:
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        if wide:
            data = data.decode("utf-16").encode()
        elif not data.isascii():
            data.decode()
    except UnicodeError as error:
        if wide:
            raise ChoiceError(f"--csv: expected a text in UTF-8, got {path}: UTF-16 that is damaged") from None
        at = error.start if isinstance(error, UnicodeDecodeError) else 0
        _refuse(path, data, at, f"the byte 0x{data[at]:02x}")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if wrong := CONTROL.search(data):
        character = wrong[0].decode()
        got = f"the byte 0x{ord(character):02x}" if character < "\x80" else f"the character U+{ord(character):04X}"
        _refuse(path, data, wrong.start(), got)
    return data


def _refuse(path: Path, data: bytes, at: int, got: str) -> NoReturn:
    line = 1 + data[:at].count(b"\n")
    raise ChoiceError(f"{path}, line {line}: expected a text in UTF-8, got {got}; save it as UTF-8") from None


def _expect_table(data: bytes) -> None:
    """Raise a KindError if the data are of another kind, which their beginning tells."""
    for start, kind in BEGINNINGS.items():
        if data.startswith(start):
            raise KindError(kind)
    for pattern, kind in PATTERNS.items():
        if re.match(pattern, data[:4096]):
            raise KindError(kind)


def _only_file(file: BinaryIO) -> IO[bytes]:
    archive = zipfile.ZipFile(file)
    names = [name for name in archive.namelist() if not name.endswith("/")]
    for beginning, kind in ARCHIVES.items():
        if any(name.startswith(beginning) for name in names):
            raise KindError(kind)
    if names and all(name.endswith(".npy") for name in names):
        raise KindError("a file of NumPy arrays (.npz)")
    names = [name for name in names if not name.startswith("__MACOSX/")] or names
    if len(names) != 1:
        raise SizeError(f"it holds {len(names)} files, not one; a workbook has to be saved as CSV")
    return archive.open(names[0])
