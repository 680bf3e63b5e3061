"""Samples -> the 28 descriptors: a clip in 28 numbers, as it was done before deep learning.

The descriptors are those of the first project: tempo and number of beats, the means over a clip's
frames of six of librosa's features, and the means of twenty MFCCs.
"""

import os
from pathlib import Path

import librosa
import numpy as np
import pandas as pd

from ..data.audio import SAMPLE_RATE, AudioError, load_audio
from ..errors import MelgenreError
from ..parallel import parallel_map
from ..text import names_below

DESCRIPTORS = (
    ("tempo", "beats", "chroma_stft", "rmse", "spectral_centroid", "spectral_bandwidth")
    + ("rolloff", "zero_crossing_rate")
    + tuple(f"mfcc{i}" for i in range(1, 21))
)
"""Names of the 28 descriptors, in the first project's order and spelling."""


class DescriptorError(MelgenreError, ValueError):
    """A table of descriptors that cannot be used; the message says why."""


def clip_descriptors(y, sample_rate=SAMPLE_RATE):
    """The 28 descriptors of a clip, by librosa's features at their defaults.

    Parameters
    ----------
    y : np.ndarray [shape=(n,)]
        Samples.
    sample_rate : int
        Their rate in Hz.

    Returns
    -------
    np.ndarray [shape=(28,)]
        In the order of `DESCRIPTORS`: tempo in beats a minute, beats as a count, centroid,
        bandwidth and rolloff in Hz, crossings as a share of the samples.
    """
    magnitude = np.abs(librosa.stft(y))
    tempo, beats = librosa.beat.beat_track(y=y, sr=sample_rate)
    frames = [
        librosa.feature.chroma_stft(y=y, sr=sample_rate),
        librosa.feature.rms(y=y),
        librosa.feature.spectral_centroid(S=magnitude, sr=sample_rate),
        librosa.feature.spectral_bandwidth(S=magnitude, sr=sample_rate),
        librosa.feature.spectral_rolloff(S=magnitude, sr=sample_rate),
        librosa.feature.zero_crossing_rate(y),
    ]
    mfcc = librosa.feature.mfcc(y=y, sr=sample_rate, n_mfcc=20).mean(axis=1)
    return np.hstack([np.ravel(tempo)[0], len(beats), [f.mean() for f in frames], mfcc])


def compute_descriptors(tracks, *, progress=True):
    """The 28 descriptors of every track that has sound, on all cores.

    Tracks without sound are left out; what cannot be read is skipped, and listed at the end.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `path`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    pd.DataFrame
        The tracks with a column for each of `DESCRIPTORS`.

    Raises
    ------
    AudioError
        If there is no sound, or none of it can be read.
    """
    tracks = tracks.dropna(subset="path").reset_index(drop=True)
    warm_up_numba_cache()
    # Workers may have another working directory.
    calls = [(os.path.abspath(path),) for path in tracks["path"]]
    done = parallel_map(_describe, calls, desc="descriptors", unit=" clips", progress=progress)
    named = names_below(tracks["path"].tolist())
    described = list(done)
    broken = [f"{name}: {one}" for name, one in zip(named, described, strict=True)
              if isinstance(one, str)]  # fmt: skip
    if broken:
        print(f"{len(broken)} of {len(tracks)} tracks skipped:", *broken, sep="\n  ")
    readable = [not isinstance(one, str) for one in described]
    if not any(readable):
        raise AudioError("No track with sound that can be read: there is nothing to describe.")
    columns = pd.DataFrame(
        [one for one in described if not isinstance(one, str)], columns=DESCRIPTORS
    )
    tracks = tracks[readable].drop(columns=list(DESCRIPTORS), errors="ignore")
    return pd.concat([tracks.reset_index(drop=True), columns], axis=1)


def warm_up_numba_cache():
    """Have librosa's functions in numba's cache before several processes look for them there.

    Processes that fill the cache side by side can leave a kernel of the one beside a wrapper of
    the other, and from then on every process crashes (numba issue 10128). Up to 0.11 librosa
    compiles where it is imported, from 1.0 on where it is first called: so it is called.
    """
    seconds = np.arange(5 * SAMPLE_RATE, dtype=np.float32) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * 220 * seconds)
    clip_descriptors(tone)
    clip_descriptors(tone * (seconds % 0.5 < 0.1))  # what has a beat goes other ways


def _describe(path):
    """The descriptors of a file, or the reason why there are none."""
    try:
        return clip_descriptors(load_audio(path))
    except AudioError as error:
        return error.reason
    except Exception as error:  # one recording never ends a folder
        return f"cannot be described ({type(error).__name__}). Convert it to wav."


def load_descriptors(file, tracks):
    """Descriptors that were extracted earlier, for the tracks they belong to.

    Parameters
    ----------
    file : str or Path
        A CSV with `filename` (`blues.00000.au`) or `track_id`, and `DESCRIPTORS`.
    tracks : pd.DataFrame
        With `track_id`.

    Returns
    -------
    pd.DataFrame
        The tracks that the file describes, with a column for each of `DESCRIPTORS`.

    Raises
    ------
    DescriptorError
        If a descriptor is missing, or the file describes none of the tracks.
    """
    table = pd.read_csv(file)
    if "track_id" not in table and "filename" in table:
        table["track_id"] = table["filename"].str.removesuffix(".au").str.removesuffix(".wav")
    missing = [name for name in ("track_id", *DESCRIPTORS) if name not in table]
    if missing:
        raise DescriptorError(
            f"{file} has no column {', '.join(missing)}: extract the descriptors anew."
        )
    described = tracks.merge(table[["track_id", *DESCRIPTORS]], on="track_id")
    if described.empty:
        raise DescriptorError(
            f"{file} describes none of these {len(tracks)} tracks: extract them anew."
        )
    return described


def find_descriptors(tracks):
    """A `features_28.csv` that lies beside the collection's folders; None where there is none.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `path` or `image`.

    Returns
    -------
    Path or None
    """
    named = pd.concat([tracks["path"], tracks["image"]]).dropna().head(1)
    for file in named:
        for folder in list(Path(file).parents)[:4]:
            if (folder / "features_28.csv").exists():
                return folder / "features_28.csv"
    return None
