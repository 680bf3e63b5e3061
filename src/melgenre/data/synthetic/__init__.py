"""Synthetic music, for use without data."""
