"""What was found: runs on disk, their statistics, tables and comparisons, and how numbers are written."""
