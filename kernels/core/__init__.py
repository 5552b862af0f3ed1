"""What the cells are built from: SIMD vectors, register tiles, teams of threads, the walk through time, the doors."""
