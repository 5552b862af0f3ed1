"""What takes a long memory: the adding problem and the copy task."""
