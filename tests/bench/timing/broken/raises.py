"""Raises, with a message of two lines."""

from bench.implementations import numpy

version, start = numpy.version, numpy.start


def prepare(case, inputs):
    raise ValueError("not today\n  nor tomorrow")
