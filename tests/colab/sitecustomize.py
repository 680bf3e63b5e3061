"""Every process with this folder on its path imports google.colab first, as on Colab."""

import google.colab  # noqa: F401
