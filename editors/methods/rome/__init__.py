"""ROME: one fact written into one MLP matrix as a rank-one change (Meng et al. 2022)."""
