"""Forms of out-of-scope probes in the field's data sets."""

from __future__ import annotations

NEIGHBOUR = "neighbour"
"""Of the same relation, with the answer that the edit replaces, which stays true of it (CounterFact)."""

LOCALITY = "locality"
"""Anything else that should stay: an unrelated question (zsRE), another relation of the subject (KnowEdit)."""
