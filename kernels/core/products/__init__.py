"""Matrix products on register tiles, of weights laid out in panels, and what enters them."""
