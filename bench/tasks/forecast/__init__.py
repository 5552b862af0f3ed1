"""Stock prices, or any series of numbers, of which the next row is to be foretold."""
