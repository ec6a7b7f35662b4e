"""Training pairs for the scope classifier, and the hard set that measures it."""
