"""Measuring what editing does to a model."""
