"""What we know of a model: how to load it, what its parts are called, and how to look at it through a view."""
