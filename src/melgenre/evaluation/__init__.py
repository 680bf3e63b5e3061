"""Accuracies, their intervals and tests, and the results on disk (notebook 09)."""
