"""A sine, whose next values are to be foretold: the article's task."""
