"""The confusion matrix and the clips in its cells (notebook 06)."""
