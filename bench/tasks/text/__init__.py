"""A text, of which the next character is to be foretold; and writing with what was learned."""
