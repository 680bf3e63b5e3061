"""A fake of Colab's module, with the functions that the notebooks and their packages call."""

from google.colab import drive, output  # noqa: F401
