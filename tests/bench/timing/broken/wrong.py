"""Off by a thousandth in the last of its outputs."""

from bench.implementations import numpy

version, start = numpy.version, numpy.start


def prepare(case, inputs):
    prepared = numpy.prepare(case, inputs)

    def outputs(result):
        named = prepared.outputs(result)
        name = list(named)[-1]
        return named | {name: named[name] * 1.001}

    return prepared._replace(outputs=outputs)
