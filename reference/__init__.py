"""Recurrent cells and their back-propagation through time, in NumPy: the definition of right."""
