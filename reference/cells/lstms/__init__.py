"""Cells with a memory beside h."""
