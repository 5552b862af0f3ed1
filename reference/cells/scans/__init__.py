"""Cells without W: each unit is a recurrence of its own."""
