"""A team of threads that are awake already, and how many of them there may be."""
