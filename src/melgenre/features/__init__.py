"""Tracks -> images and descriptors (notebooks 02 and 03)."""
