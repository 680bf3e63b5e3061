"""Samples -> log-mel-spectrogram -> image, by NumPy alone.

White is the loudest point of the clip, black is 80 dB below it; the top row is the highest mel
band.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..data.mel_settings import MelSettings


def log_melspectrogram(y: np.ndarray, settings: MelSettings = MelSettings()) -> np.ndarray:
    """Mel-spectrogram in dB relative to its own maximum.

    The result is that of librosa's `melspectrogram` and `power_to_db`, in half the time.

    Parameters
    ----------
    y : np.ndarray [shape=(n,)]
        Samples at `settings.sample_rate`.

    Returns
    -------
    np.ndarray [shape=(n_mels, 1 + n // hop_length), dtype=float32]
        Between `-top_db` and 0 dB; row 0 is the lowest band. Silence is `-top_db` everywhere.

    Examples
    --------
    >>> log_melspectrogram(np.zeros(22050)).shape
    (128, 13)
    """
    n_fft, groups = settings.n_fft, _filter_groups(settings)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)
    frames = sliding_window_view(np.pad(y, n_fft // 2), n_fft)[:: settings.hop_length]
    power = np.empty((settings.n_mels, len(frames)), np.float32)
    for start in range(0, len(frames), 32):  # so many fit into the cache of the CPU
        spectrum = np.fft.rfft(frames[start : start + 32] * window)
        spectrum = spectrum.real**2 + spectrum.imag**2
        for bands, frequencies, weights in groups:
            power[bands, start : start + 32] = weights @ spectrum[:, frequencies].T
    # 1e-10 is librosa's lower bound of power. Relative to it, silence would be all white.
    maximum = power.max()
    if maximum <= 1e-10:
        return np.full_like(power, -settings.top_db)
    decibels = 10 * np.log10(np.maximum(power, 1e-10) / maximum)
    return np.maximum(decibels, -settings.top_db)


@lru_cache
def _filter_groups(settings: MelSettings) -> list[tuple[slice, slice, np.ndarray]]:
    """Eight mel bands each: the bands, the frequencies that they use, and the weights of these.

    Nearly all of the filter bank is zero. A product with the whole would take longer, and would
    start threads, which compete with those of the network.
    """
    filters, groups = mel_filterbank(settings), []
    for first in range(0, settings.n_mels, 8):
        bands = slice(first, first + 8)
        used = np.flatnonzero(filters[bands].any(axis=0))
        frequencies = slice(used[0], used[-1] + 1) if used.size else slice(0)
        groups.append((bands, frequencies, filters[bands, frequencies]))
    return groups


def mel_filterbank(settings: MelSettings) -> np.ndarray:
    """librosa's mel filters, without importing librosa, which takes seconds.

    Triangles of equal area on the scale of Slaney, "Auditory Toolbox" (1998): linear up to 1 kHz,
    logarithmic above.

    Returns
    -------
    np.ndarray [shape=(n_mels, 1 + n_fft // 2), dtype=float32]
        Weight of each frequency in each band.
    """
    # In mels of 200/3 Hz: 15 of them make the linear part, and then 27 make a factor of 6.4.
    per_octave = 27 / np.log(6.4)
    nyquist = settings.sample_rate / 2
    highest = 15 + per_octave * np.log(nyquist / 1000) if nyquist > 1000 else nyquist * 3 / 200
    mels = np.linspace(0, highest, settings.n_mels + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) / per_octave))
    frequencies = np.linspace(0, nyquist, 1 + settings.n_fft // 2)
    low, centre, high = (edges[i : i + settings.n_mels, None] for i in range(3))
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    filters = np.minimum(rising, falling).clip(min=0) * 2 / (high - low)
    return filters.astype(np.float32)


def fix_length(y: np.ndarray, settings: MelSettings = MelSettings()) -> np.ndarray:
    """Crop or repeat samples to the length of one image.

    Of a longer recording, the middle is kept; it starts at a multiple of the hop, so that a clip
    that is a few samples too long keeps its first one. A shorter recording is repeated: silence
    would change the statistics of the image.

    Parameters
    ----------
    y : np.ndarray [shape=(n,)]

    Returns
    -------
    np.ndarray [shape=(settings.samples,)]

    Examples
    --------
    >>> fix_length(np.array([1, 2]), MelSettings(sample_rate=5, duration=1))
    array([1, 2, 1, 2, 1])
    """
    excess = len(y) - settings.samples
    if excess < 0:
        return np.resize(y, settings.samples)
    start = excess // 2 // settings.hop_length * settings.hop_length
    return y[start : start + settings.samples]


def melspectrogram_image(y: np.ndarray, settings: MelSettings = MelSettings()) -> np.ndarray:
    """The image of one clip.

    Parameters
    ----------
    y : np.ndarray [shape=(n,)]
        Samples at `settings.sample_rate`; other lengths than a clip's are changed by `fix_length`.

    Returns
    -------
    np.ndarray [shape=(n_mels, columns), dtype=uint8]
        0 is `-top_db`, 255 is the clip's maximum; row 0 is the highest mel band.

    Examples
    --------
    >>> melspectrogram_image(np.sin(np.arange(22050.0))).shape
    (128, 387)
    """
    decibels = log_melspectrogram(fix_length(y, settings), settings)
    grey = np.rint((decibels / settings.top_db + 1) * 255)
    return np.flipud(grey).astype(np.uint8)
