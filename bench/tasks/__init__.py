"""Tasks learned from start to end: the same model, data and seeds, trained by each implementation.

A task is one file with its data and its settings, and one with its page: `sine.py` and `sine_report.py`, `stocks.py`
and `series.py` (both on `forecast.py` and `columns.py`), `memory.py`, and `text.py` with what only a text needs:
`ngram.py`, `generate.py`, `checkpoint.py`. `cli.py` and `text_cli.py` have the commands.

What tasks share: `model.py` (a cell and a head), `optimizers.py`, `fused.py` (both in compiled code), `learners/` (who
computes), `training.py` (the race) and `race_report.py` (what the race came to).
"""
