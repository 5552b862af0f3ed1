"""Right until it was called a few dozen times, and then off by a thousandth."""

from itertools import count

from bench.implementations import numpy

version, start = numpy.version, numpy.start


def prepare(case, inputs):
    prepared = numpy.prepare(case, inputs)
    calls = count()

    def outputs(result):
        return {name: a * (1.001 if next(calls) > 30 else 1) for name, a in prepared.outputs(result).items()}

    def call():
        next(calls)
        return prepared.call()

    return prepared._replace(call=call, outputs=outputs)
