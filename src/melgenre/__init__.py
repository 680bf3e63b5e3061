"""melgenre: music genre classification from pictures of music.

One table of tracks walks through the rooms of this package, and each room does one step:
`collection` finds the music, `melspectrogram` turns it into pictures, `splits` keeps learning and
testing apart, `learner` trains, `evaluation` counts, `classifier` answers for any recording.
"""

import os

# ONNX Runtime reports each model that it loads to its maker, unless this is set before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
