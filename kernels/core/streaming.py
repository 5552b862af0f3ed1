"""Where a stream that was pickled before there were rooms looks for what makes it again."""

from kernels.core.doors.streams import _revive  # noqa: F401
