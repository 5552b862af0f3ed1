"""Recurrent cells and their back-propagation through time, compiled by Numba: the same names and results as
`reference`, as fast as the CPU can be."""
