"""What a call must be, and how it gets in."""

from kernels.core.doors.calls import Gradients, Output, Prepared  # noqa: F401  by these names they were pickled
