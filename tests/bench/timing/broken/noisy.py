"""Right, but talks on stdout, from Python and from C."""

import os

from bench.implementations import numpy

version, start = numpy.version, numpy.start


def prepare(case, inputs):
    print("hello")
    os.write(1, b'{"status": "wrong"}\n')
    return numpy.prepare(case, inputs)
