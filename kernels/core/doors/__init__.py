"""What a call must be, and how it gets in."""
