"""Fine-tuning, the baseline: a few steps of Adam on the edits themselves."""
