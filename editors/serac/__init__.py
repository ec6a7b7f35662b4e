"""SERAC (Mitchell et al. 2022): edits kept in a memory beside the frozen model, found by scope, answered in context."""
