"""Of a recording: its name in a message, what can be wrong with it, its samples as floats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import MelgenreError
from ..paths import StoreError, is_url, local_copy
from ..text import printable

MOST_CHANNELS = 8  # PyAV reads beyond the memory of a (damaged) frame that has more
LOWEST_RATE, HIGHEST_RATE = 1000, 768_000  # in Hz; a header may state anything

Recording = str | Path | bytes | BinaryIO


class AudioError(MelgenreError, ValueError):
    """A recording that cannot be used.

    Attributes
    ----------
    reason : str
        The cause and the remedy.
    name : str
        The file: its path as it was given; of an absolute path, the last folder and the file.
    """

    def __init__(self, reason: str, name: str = "") -> None:
        super().__init__(f"{name}: {reason}" if name else reason)
        self.reason, self.name = reason, name


class UnreadableError(AudioError):
    """libsndfile does not read this file; PyAV may."""


def display_name(recording: Recording | tuple) -> str:
    """The name of a recording in a message; see `AudioError`."""
    if not isinstance(recording, (str, Path)):
        recording = str(getattr(recording, "name", "the recording"))
    if is_url(recording):
        return printable(recording)
    path = Path(recording)
    # A message may be shown in a notebook, which must not show private folders.
    return printable(Path(path.parent.name, path.name) if path.is_absolute() else path)


@contextmanager
def audio_errors(name: str) -> Iterator[None]:
    """Turn every error of a decoder into an `AudioError` of this file."""
    try:
        yield
    except (AudioError, StoreError):
        raise
    except Exception as error:  # libsndfile, PyAV and NumPy raise many types for damaged files
        cause = "not enough memory" if isinstance(error, MemoryError) else cause_of(error)
        raise AudioError(f"damaged ({cause}). Download it again, or leave it out.", name) from error


@contextmanager
def fetched(recording: Recording, name: str) -> Iterator[Recording]:
    """The recording itself, or a temporary copy of one at a URL."""
    if isinstance(recording, bytes) or not is_url(recording):
        yield recording
        return
    with ExitStack() as stack:
        try:
            copy = stack.enter_context(local_copy(recording))
        except FileNotFoundError:
            raise AudioError("no such file.", name) from None
        except PermissionError as error:
            raise StoreError(f"{name} may not be read. Check the credentials.") from error
        yield copy


def damaged(seconds: float, error: Exception, name: str) -> AudioError:
    return AudioError(
        f"truncated or damaged: no sound can be read after {seconds:.1f} s ({cause_of(error)}). "
        "Download the file again, or leave it out.",
        name,
    )


def ends_within_frame(name: str) -> AudioError:
    return AudioError(
        "truncated: it ends within a frame. Download the file again, or leave it out.", name
    )


def check_complete(stated: float, found: float, name: str) -> None:
    """Raise if over a second is missing; compressed formats state their length to some frames."""
    if found < stated - 1:
        raise AudioError(
            f"truncated or damaged: {stated:.1f} s expected, {found:.1f} s found. "
            "Download the file again, or leave it out.",
            name,
        )


def check_bounds(rate: int, channels: int, name: str) -> None:
    """Raise if a header states so much that the file would take gigabytes or hours."""
    if not is_sample_rate(rate):
        raise AudioError(
            f"a sample rate of {rate:,} Hz; it must be between {LOWEST_RATE:,} and "
            f"{HIGHEST_RATE:,} Hz. Convert the file to wav or flac, or leave it out.",
            name,
        )
    if channels > MOST_CHANNELS:
        raise AudioError(
            f"{channels} channels; at most {MOST_CHANNELS} are read. Convert the file to stereo, "
            "or leave it out.",
            name,
        )


def is_sample_rate(rate: int) -> bool:
    return LOWEST_RATE <= rate <= HIGHEST_RATE


def cause_of(error: Exception) -> str:
    """The message of a decoder, without the path that it begins with."""
    message = getattr(error, "error_string", None) or getattr(error, "strerror", None)
    message = printable(message).removeprefix("Error : ") if isinstance(message, str) else ""
    # The messages of libsndfile and ffmpeg for a file of an unknown format.
    unknown = ("File does not exist or is not a regular file", "Invalid argument")
    if message and message.startswith(unknown):
        return "unknown format"
    return message[:1].lower() + message[1:].rstrip(". ") if message else "it is damaged"


def mono(y: np.ndarray) -> np.ndarray:
    """Samples [shape=(n,) or (n, channels)] -> [shape=(n,), dtype=float32]."""
    return y.mean(axis=1, dtype=np.float32) if y.ndim > 1 else np.asarray(y, np.float32)


def as_floats(y: np.ndarray) -> np.ndarray:
    """Samples of any type as floating point within [-1, 1]."""
    if not np.issubdtype(y.dtype, np.integer):
        return y
    floats = y * np.float32(2.0 ** (1 - np.iinfo(y.dtype).bits))
    return floats if np.issubdtype(y.dtype, np.signedinteger) else floats - 1
