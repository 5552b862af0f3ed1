"""Computes for ever, holding the interpreter's lock."""

from bench.implementations import numpy

version, start = numpy.version, numpy.start


def prepare(case, inputs):
    return 10 ** (10**9)
