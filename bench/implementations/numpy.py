"""`reference/` as written: NumPy, with the BLAS that it was built with.

Forward computes the input projection as one product over all steps, then a product a step. BPTT's backward
recurrence is a product a step, and each weight gradient one product over all steps. Every call allocates its
results, as NumPy does. Library defaults, with the BLAS threads of the case. In a case below float32 it computes in
float32. A network is run cell by cell; where lengths differ, time is cut where sequences end, and those that go on are
copied together.
"""

from importlib import import_module
from importlib.metadata import version as package_version

from bench.implementations import prepare_cell
from reference import stack


def version():
    return package_version("numpy")


def start(threads):
    """Nothing to do: the BLAS takes its threads from the environment."""


def prepare(case, inputs):
    return prepare_cell(import_module(f"reference.{case.cell}"), stack, case, inputs)
