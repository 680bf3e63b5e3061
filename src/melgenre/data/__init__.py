"""Where tracks come from: recordings, collections, splits, labels (notebook 01)."""
