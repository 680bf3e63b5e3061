"""A fake of Colab's module, as far as the notebooks and the packages that they use call it."""

from google.colab import drive, output  # noqa: F401
