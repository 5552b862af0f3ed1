"""Cells whose one state is h."""
