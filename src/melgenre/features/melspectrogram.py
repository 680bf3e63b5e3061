"""Samples -> mel-spectrogram -> PNG: one image a clip, for a whole collection.

An image of 128 mel bands by 387 columns has the pixel count of the 224 x 224 images that
ImageNet networks were trained on, so a network sees all of a 30 s clip, neither resized nor
squeezed. White is the loudest spot of the clip, black is 80 dB below it; the top row is the
highest mel band.
"""

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import rfft
from scipy.sparse import csr_array

from ..data.mel_settings import MelSettings


def log_melspectrogram(y, settings=MelSettings()):
    """Mel-spectrogram in dB below its own maximum.

    Parameters
    ----------
    y : np.ndarray [shape=(n,)]
        Samples at `settings.sample_rate`.
    settings : MelSettings

    Returns
    -------
    np.ndarray [shape=(n_mels, 1 + n // hop_length), dtype=float32]
        Between `-top_db` and 0 dB; row 0 is the lowest band. Silence is `-top_db` everywhere.
    """
    # What librosa's melspectrogram and power_to_db give (tests compare them), in half the time.
    n_fft, bands = settings.n_fft, mel_filterbank(settings)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)
    frames = sliding_window_view(np.pad(y, n_fft // 2), n_fft)[:: settings.hop_length].T
    power = np.empty((settings.n_mels, frames.shape[1]), np.float32)
    for start in range(0, frames.shape[1], 128):  # so many fit into the CPU's cache
        spectrum = rfft(frames[:, start : start + 128] * window[:, None], axis=0)
        power[:, start : start + 128] = bands @ (spectrum.real**2 + spectrum.imag**2)
    # librosa's floor for power; a clip that nowhere rises above it would come out all white.
    loudest = power.max()
    if loudest <= 1e-10:
        return np.full_like(power, -settings.top_db)
    decibels = 10 * np.log10(np.maximum(power, 1e-10) / loudest)
    return np.maximum(decibels, -settings.top_db)


@lru_cache
def mel_filterbank(settings):
    """The mel filters that librosa makes, without the seconds that importing it takes.

    Triangles of equal area on the scale of Slaney, "Auditory Toolbox" (1998): linear up to 1 kHz,
    logarithmic above.

    Parameters
    ----------
    settings : MelSettings

    Returns
    -------
    scipy.sparse.csr_array [shape=(n_mels, 1 + n_fft // 2), dtype=float32]
        Weight of each frequency of the Fourier transform in each band. Nearly all are zero; and
        the threads of a dense product would still be spinning when the network wants the cores.
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
    bands = np.minimum(rising, falling).clip(min=0) * 2 / (high - low)
    return csr_array(bands.astype(np.float32))


def fix_length(y, settings=MelSettings()):
    """Exactly one image's worth of samples.

    A longer recording gives its middle (from a whole number of hops, so that a clip a few samples
    too long starts at its first); a shorter one is repeated, since a genre is a texture and half
    an image of silence would be none of the genre's.

    Parameters
    ----------
    y : np.ndarray [shape=(n,)]

    Returns
    -------
    np.ndarray [shape=(settings.samples,)]
    """
    spare = len(y) - settings.samples
    if spare < 0:
        return np.resize(y, settings.samples)
    start = spare // 2 // settings.hop_length * settings.hop_length
    return y[start : start + settings.samples]


def melspectrogram_image(y, settings=MelSettings()):
    """The image of one clip.

    Parameters
    ----------
    y : np.ndarray [shape=(n,)]
        Samples at `settings.sample_rate`; see `fix_length` for other lengths than a clip's.

    Returns
    -------
    np.ndarray [shape=(n_mels, columns), dtype=uint8]
        0 is `-top_db`, 255 is the clip's maximum; row 0 is the highest mel band.
    """
    decibels = log_melspectrogram(fix_length(y, settings), settings)
    grey = np.rint((decibels / settings.top_db + 1) * 255)
    return np.flipud(grey).astype(np.uint8)
