"""Metadata of GTZAN: artists, folds, splits and checksums."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

import pandas as pd


@cache
def gtzan_metadata() -> pd.DataFrame:
    """Artists, folds, the fault-filtered split and md5 sums of GTZAN's 1000 tracks.

    Returns
    -------
    pd.DataFrame
        `track_id`, `genre`, `artist_id` and `artist_fold` (1, 2, 3) after Foleis and Tavares
        (2020) and Sturm's catalogue, `fault_filtered_split` (train, valid, test) of Kereliuk,
        Sturm and Larsen (2015), `md5_wav`. A missing split: left out as repetition or distortion.
    """
    table = pd.read_csv(
        files("melgenre.data") / "gtzan_tracks.csv",
        dtype={"artist_id": str, "artist_fold": "Int64"},
    )
    return table.assign(genre=table["track_id"].str.partition(".")[0])


def verify_gtzan(tracks: pd.DataFrame) -> pd.DataFrame:
    """Compare GTZAN's files with their known md5 sums.

    Parameters
    ----------
    tracks
        With `track_id` and `path`.

    Returns
    -------
    pd.DataFrame
        `track_id` and `problem` ("missing" or "changed") of each of the 1000 tracks whose file is
        missing or has another md5 sum. `.au` files have no known sum; only their presence is
        checked.
    """
    paths = tracks.dropna(subset="path").set_index("track_id")["path"]
    problems = []
    for track in gtzan_metadata().itertuples():
        path = paths.get(track.track_id)
        if path is None:
            problems.append((track.track_id, "missing"))
        elif path.endswith(".wav") and _md5(path) != track.md5_wav:
            problems.append((track.track_id, "changed"))
    return pd.DataFrame(problems, columns=["track_id", "problem"])


def _md5(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
