"""The confusion matrix and its clips (notebook 06)."""
