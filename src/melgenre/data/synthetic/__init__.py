"""Made-up music, for use without data."""
