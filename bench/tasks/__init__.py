"""Tasks learned from start to end: the same model, data and seeds, trained by each implementation.

A task is a folder: its data and settings, its page, and its commands in `cli.py`, which are found there. What tasks
share lies beside the folders: `learning/`, the page of a race, and what makes a command of a task.
"""
