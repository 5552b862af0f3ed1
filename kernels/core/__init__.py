"""What the cells are built from, in rooms: vectors, products, threads, walks, doors, and how code is made and kept."""
