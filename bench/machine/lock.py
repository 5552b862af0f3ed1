"""One benchmark at a time on a machine: who measures holds its lock, and who comes next says for whom it waits.

The lock is the system's own (`flock`) on a file that all users share, so that it is let go of whenever its holder ends,
be it by kill -9. In the file stands who that is. UNROLLED_LOCK may name another file: one for each part of a machine
whose parts do not disturb each other.
"""

import contextlib
import fcntl
import getpass
import os
import platform
import shlex
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from bench.grid.cases import ChoiceError

FILE = "/tmp/unrolled.lock"  # not TMPDIR, which may be each user's own
ABOUT = 400  # bytes that say who holds it, at most

_holding = 0  # how often this process does


@contextmanager
def the_machine(wait: bool = True) -> Iterator[None]:
    """Hold the machine's lock; with another benchmark there, wait for its end, or raise a ChoiceError.

    Who holds it already goes on holding it. An OSError if there is something else in the file's place.
    """
    global _holding
    if _holding:
        _holding += 1
        try:
            yield
        finally:
            _holding -= 1
        return
    file = _open(os.environ.get("UNROLLED_LOCK") or FILE)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise ChoiceError(f"--no-wait: expected no other benchmark here, got {_holder(file)}") from None
            print(f"Waiting for another benchmark on this machine: {_holder(file)}.", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        _write(file, f"process {os.getpid()} of {_user()} since {datetime.now():%H:%M:%S}, {shlex.join(sys.argv)}")
        _holding = 1
        try:
            yield
        finally:
            _holding = 0
            _write(file, "")
    finally:
        os.close(file)


def place() -> tuple[str, str]:
    """Return what this machine is called, or this part of one, and what tells its lock from all others."""
    path = os.environ.get("UNROLLED_LOCK")
    name = platform.node() or "unnamed"
    file = _open(path or FILE)
    about = os.fstat(file)
    os.close(file)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = name
    return f"{name} {Path(path).stem}" if path else name, f"{boot} {about.st_dev} {about.st_ino}"


def _open(path: str) -> int:
    """Return the file's descriptor; the file is made if need be, for all users to write to."""
    kept = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        try:
            file = os.open(path, os.O_RDWR | kept)
        except PermissionError:  # another user's, whose file system or umask kept it from us: to lock it is enough
            file = os.open(path, os.O_RDONLY | kept)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | kept, 0o666)
                os.fchmod(file, 0o666)
                return file
            continue
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise FileExistsError(17, "expected the machine's lock, got no regular file", path)
        return file


def _write(file: int, text: str) -> None:
    with contextlib.suppress(OSError):  # one that is read alone, or a full disk
        os.ftruncate(file, 0)
        os.pwrite(file, text.encode(errors="replace")[:ABOUT], 0)


def _holder(file: int) -> str:
    """Return who holds the lock, as it says itself, in one line."""
    text = os.pread(file, ABOUT, 0).decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in text) or "somebody who does not say who it is"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
