"""A recording -> samples: mono, float32, one sample rate.

There is one reader, for training and for prediction. libsndfile reads wav, flac, ogg, opus, au and
aiff; PyAV reads mp3, m4a, aac, wma and the sound of videos; without PyAV, libsndfile reads mp3 too.
A file that is empty, has no sound, or is shorter than its own header states raises `AudioError`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr

from ..errors import extra_packages
from .decoding import decode, duration_of
from .recording import AudioError, Recording, as_floats, display_name, mono

if TYPE_CHECKING:
    from IPython.display import Audio

SAMPLE_RATE = 22050
"""Sample rate of GTZAN, and the default everywhere, in Hz."""

AUDIO_SUFFIXES = frozenset(
    (".aac", ".aif", ".aiff", ".au", ".avi", ".caf", ".flac", ".m4a", ".m4b", ".m4v", ".mka")
    + (".mkv", ".mov", ".mp3", ".mp4", ".mpg", ".oga", ".ogg", ".opus", ".w64", ".wav", ".webm")
    + (".wma", ".wmv")
)
"""File name endings of recordings, videos among them: the one list for every search of a folder."""

SHORTEST_SECONDS = 1.0
BLOCK_SECONDS = 10  # decoded at a time where memory is to stay flat

Samples = tuple[np.ndarray, int]
"""Samples [shape=(n,) or (n, channels)] and their rate in Hz, in place of a file."""


def load_audio(
    path: Recording | Samples,
    *,
    sample_rate: int = SAMPLE_RATE,
    offset: float = 0.0,
    duration: float | None = None,
) -> np.ndarray:
    """Read a recording as mono samples at one rate.

    Parameters
    ----------
    path
        A file that libsndfile reads (wav, flac, ogg, opus, au, aiff, mp3) or, if it is installed,
        PyAV (m4a, aac, wma, the sound of videos); its bytes are read as well.
    sample_rate
        Rate of the returned samples, in Hz; the file may have any other.
    offset, duration
        Where to start and how much to read, in seconds; `duration=None` reads to the end.

    Returns
    -------
    np.ndarray [shape=(n,), dtype=float32]
        Samples within about [-1, 1]; several channels are averaged.

    Raises
    ------
    AudioError
        If the file is missing, empty, without sound, truncated, damaged, shorter than a second, or
        has samples that are not finite.
    """
    # A clip is one block: reading it at once is faster than joining blocks.
    blocks = list(_blocks(path, sample_rate, 60, offset, duration)) or [np.empty(0, np.float32)]
    y = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    _check_long_enough(len(y) / sample_rate, display_name(path))
    return y


def audio_duration(path: Recording) -> float:
    """Length of a recording in seconds, without decoding it; errors as of `load_audio`."""
    return duration_of(path, display_name(path))


def iter_windows(
    recording: Recording | Samples, seconds: float, *, sample_rate: int = SAMPLE_RATE
) -> Iterator[tuple[float, float, np.ndarray]]:
    """The windows of a recording of any length, one after the other, so that memory stays flat.

    A recording that is less than a second longer than a window is one window. Otherwise the last
    window ends where the recording ends, so it may overlap the one before.

    Parameters
    ----------
    recording
        A file, its bytes, or samples and their rate in Hz.
    seconds
        Length of a window.
    sample_rate
        Rate of the windows, in Hz.

    Yields
    ------
    start, end : float
        In seconds.
    y : np.ndarray [shape=(m,), dtype=float32]
        Mono samples.

    Raises
    ------
    AudioError
        As `load_audio`; for a truncated recording, after its last complete window.
    """
    n = round(seconds * sample_rate)
    rest, before, start = np.empty(0, np.float32), None, 0
    for block in _blocks(recording, sample_rate, BLOCK_SECONDS):
        rest = np.concatenate([rest, block])
        while len(rest) > n and (start or len(rest) >= n + sample_rate):
            before, rest = rest[:n], rest[n:]
            yield start / sample_rate, (start + n) / sample_rate, before
            start += n
    if before is not None:
        end = start + len(rest)
        rest = np.concatenate([before, rest])[-n:]
        yield (end - n) / sample_rate, end / sample_rate, rest
        return
    _check_long_enough(len(rest) / sample_rate, display_name(recording))
    yield 0.0, len(rest) / sample_rate, rest


def play(recording: str | Path | Samples, *, start: float = 0.0, seconds: float = 5.0) -> Audio:
    """A player for a notebook: some seconds of a recording, as a small mp3 inside the page.

    Parameters
    ----------
    recording
        A file, or mono samples and their rate in Hz.
    start, seconds
        Where to start and how much to play, in seconds; it starts earlier if the recording ends
        before.
    """
    with extra_packages("notebooks", "A player"):
        from IPython.display import Audio

    if isinstance(recording, tuple):
        y, rate = recording
        start = max(0, min(start, len(y) / rate - seconds))
        y = y[round(start * rate) : round((start + seconds) * rate)]
    else:
        start = max(0, min(start, audio_duration(recording) - seconds))
        y, rate = load_audio(recording, offset=start, duration=seconds), SAMPLE_RATE
    player = Audio(data=encode_mp3(y, rate))
    player.mimetype = "audio/mpeg"
    return player


def encode_mp3(y: np.ndarray, rate: int) -> bytes:
    """Samples [shape=(n,)] at `rate`, in Hz -> the bytes of a small mp3, some 6 kB per second."""
    mp3 = io.BytesIO()
    soundfile.write(mp3, y, rate, format="MP3")
    return mp3.getvalue()


def _blocks(
    recording: Recording | Samples,
    sample_rate: int,
    seconds: int,
    offset: float = 0.0,
    duration: float | None = None,
) -> Iterator[np.ndarray]:
    """A recording's samples, mono and at one rate, so many seconds at a time."""
    name = display_name(recording)
    resample, rate_before = None, None
    if isinstance(recording, tuple):
        source = _blocks_of_samples(*recording, seconds)
    else:
        source = decode(recording, name, seconds, offset, duration)
    for y, rate in source:
        y = mono(y)
        if not np.isfinite(y).all():
            raise AudioError("holds samples that are not numbers (NaN or infinite).", name)
        if rate != sample_rate:
            if rate != rate_before:
                resample, rate_before = soxr.ResampleStream(rate, sample_rate, 1), rate
            y = resample.resample_chunk(y)
        yield y
    if resample is not None:
        yield resample.resample_chunk(np.empty(0, np.float32), last=True)


def _blocks_of_samples(y: np.ndarray, rate: int, seconds: int) -> Iterator[tuple[np.ndarray, int]]:
    y = np.asarray(y)
    for start in range(0, len(y), seconds * rate):
        yield as_floats(y[start : start + seconds * rate]), rate


def _check_long_enough(seconds: float, name: str) -> None:
    if seconds < SHORTEST_SECONDS:
        raise AudioError(
            f"{seconds:.2f} s long; at least {SHORTEST_SECONDS:.0f} s is required.", name
        )
