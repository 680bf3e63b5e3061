"""A fake of Colab's module, as far as the notebooks use it."""
