"""The product around the editors: HTTP doors, actions, the domain, the store and the runtime that holds the model."""

__version__ = "0.1.0"
