"""Baselines, learners, their features and their export (notebooks 03 to 05)."""
