"""Samples -> 28 descriptors, the hand-made features used before deep learning.

The descriptors are tempo and number of beats, the means over a clip's frames of six of librosa's
features, and the means of twenty MFCCs.
"""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import librosa
import numpy as np
import pandas as pd

from ..data.audio import SAMPLE_RATE, AudioError, load_audio
from ..errors import MelgenreError
from ..parallel import parallel_map
from ..paths import StoreError, absolute, as_path
from ..text import names_below
from .skipped import report_skipped

if TYPE_CHECKING:
    from upath import UPath

DESCRIPTORS = (
    *("tempo", "beats", "chroma_stft", "rmse", "spectral_centroid", "spectral_bandwidth"),
    *("rolloff", "zero_crossing_rate"),
    *(f"mfcc{i}" for i in range(1, 21)),
)
"""Names of the 28 descriptors, in the order and spelling of the table `features_28.csv`."""


class DescriptorError(MelgenreError, ValueError):
    """A table of descriptors that cannot be used; the message says why."""


def clip_descriptors(y: np.ndarray, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """The 28 descriptors of a clip, by librosa's features with their defaults.

    Parameters
    ----------
    y : np.ndarray [shape=(n,)]
        Samples.
    sample_rate
        In Hz.

    Returns
    -------
    np.ndarray [shape=(28,)]
        In the order of `DESCRIPTORS`: tempo in beats per minute, number of beats, centroid,
        bandwidth and rolloff in Hz, zero crossings per sample.

    Examples
    --------
    >>> tone = np.sin(2 * np.pi * 440 * np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE)
    >>> dict(zip(DESCRIPTORS, clip_descriptors(tone)))["zero_crossing_rate"].round(2)
    np.float64(0.04)
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


def compute_descriptors(tracks: pd.DataFrame, *, progress: bool = True) -> pd.DataFrame:
    """The 28 descriptors of every track that has sound, on all cores.

    Parameters
    ----------
    tracks
        With `path`; tracks without sound are left out.
    progress
        Show a progress bar.

    Returns
    -------
    pd.DataFrame
        The tracks with one column for each of `DESCRIPTORS`. Tracks that cannot be read are
        skipped: `attrs["skipped"]` is a list of (name, reason), and one `MelgenreWarning` names
        them.

    Raises
    ------
    AudioError
        If there is no sound, or none of it can be read.
    """
    tracks = tracks.dropna(subset="path").reset_index(drop=True)
    warm_up_numba_cache()
    calls = [(absolute(path),) for path in tracks["path"]]
    found = parallel_map(
        _describe, calls, total=len(calls), desc="descriptors", unit=" clips", progress=progress
    )
    done = [one for _, one in sorted(found, key=itemgetter(0))]
    readable = [not isinstance(one, str) for one in done]
    if not any(readable):
        raise AudioError("No track with sound that can be read: there is nothing to describe.")
    columns = pd.DataFrame([one for one in done if not isinstance(one, str)], columns=DESCRIPTORS)
    kept = tracks[readable].drop(columns=list(DESCRIPTORS), errors="ignore")
    described = pd.concat([kept.reset_index(drop=True), columns], axis=1)
    names = names_below(tracks["path"].tolist())
    skipped = [(name, one) for name, one in zip(names, done, strict=True) if isinstance(one, str)]
    report_skipped(described, skipped, len(tracks))
    return described


def warm_up_numba_cache() -> None:
    """Fill numba's cache with librosa's functions before several processes use it.

    Processes that fill the cache at the same time can leave a kernel of one process beside a
    wrapper of another; after that every process crashes (numba issue 10128). librosa up to 0.11
    compiles when it is imported, from 1.0 on when a function is first called.
    """
    seconds = np.arange(5 * SAMPLE_RATE, dtype=np.float32) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * 220 * seconds)
    clip_descriptors(tone)
    clip_descriptors(tone * (seconds % 0.5 < 0.1))  # with beats: other functions of the tracker


def _describe(path):
    """The descriptors of a file, or the reason why there are none."""
    try:
        return clip_descriptors(load_audio(path))
    except AudioError as error:
        return error.reason
    except StoreError:
        raise
    except Exception as error:  # librosa fails in many ways, and one file must not end the run
        return f"cannot be described ({type(error).__name__}). Convert it to wav."


def load_descriptors(file: str | Path | UPath, tracks: pd.DataFrame) -> pd.DataFrame:
    """Descriptors of a table that was made earlier, joined to their tracks.

    Parameters
    ----------
    file
        A CSV with `filename` (`blues.00000.au`) or `track_id`, and `DESCRIPTORS`.
    tracks
        With `track_id`.

    Returns
    -------
    pd.DataFrame
        The tracks that are in the file, with one column for each of `DESCRIPTORS`.

    Raises
    ------
    DescriptorError
        If a descriptor is missing, or none of the tracks is in the file.
    """
    with as_path(file).open("rb") as opened:
        table = pd.read_csv(opened)
    if "track_id" not in table and "filename" in table:
        table["track_id"] = table["filename"].str.removesuffix(".au").str.removesuffix(".wav")
    missing = [name for name in ("track_id", *DESCRIPTORS) if name not in table]
    if missing:
        raise DescriptorError(
            f"{file} has no column {', '.join(missing)}: compute the descriptors again."
        )
    described = tracks.merge(table[["track_id", *DESCRIPTORS]], on="track_id")
    if described.empty:
        raise DescriptorError(
            f"{file} has none of these {len(tracks)} tracks: compute the descriptors again."
        )
    return described


def find_descriptors(tracks: pd.DataFrame) -> Path | UPath | None:
    """The file `features_28.csv` beside the collection's folders; None if there is none.

    Parameters
    ----------
    tracks
        With `path` and `image`.
    """
    first = pd.concat([tracks["path"], tracks["image"]]).dropna().head(1)
    for file in first:
        for folder in list(as_path(file).parents)[:4]:
            if (folder / "features_28.csv").exists():
                return folder / "features_28.csv"
    return None
