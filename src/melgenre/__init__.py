"""melgenre: music genre classification from mel-spectrogram images.

One table of tracks goes through six subpackages, and each does one step: `data` finds the music and
splits it, `features` makes images and descriptors, `training` trains, `evaluation` measures,
`confusion` shows what is confused, and `inference` predicts the genre of any recording.
"""

import os

import lazy_loader

from .errors import extra_packages

# ONNX Runtime reports each model that it loads to its maker, unless this is set before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.2.0"

# The public names stand in `__init__.pyi`; each is imported when it is first used.
_imported, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    with extra_packages("train", f"melgenre.{name}"):
        return _imported(name)
