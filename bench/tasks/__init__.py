"""Tasks learned from start to end: the same model, data and seed, trained by each implementation.

A task is one file with its data, its settings and its page (`sine.py`); `cli.py` has the commands. What tasks share:
`model.py` (a cell and a head), `optimizers.py`, `training.py` (the race), `charts.py` (its curves).
"""
