"""Right for the first calls, and off by a thousandth from the thirtieth on."""

from itertools import count

from bench.implementations import numpy

version, start = numpy.version, numpy.start


def prepare(case, inputs):
    prepared = numpy.prepare(case, inputs)
    numbers = count()

    def call():
        return next(numbers), prepared.call()

    def outputs(result):
        number, right = result
        return {name: a * (1.001 if number >= 30 else 1) for name, a in prepared.outputs(right).items()}

    return prepared._replace(call=call, outputs=outputs)
