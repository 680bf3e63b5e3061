"""Every process with this folder on its path is on Colab, where google.colab is imported first."""

import google.colab  # noqa: F401
