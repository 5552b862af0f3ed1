"""Dies of a segmentation fault in its third call, when the rounds have begun."""

import ctypes
import itertools

from bench.implementations import numpy

version, start = numpy.version, numpy.start


def prepare(case, inputs):
    prepared, calls = numpy.prepare(case, inputs), itertools.count(1)

    def call():
        if next(calls) > 2:
            ctypes.string_at(0)
        return prepared.call()

    return prepared._replace(call=call)
