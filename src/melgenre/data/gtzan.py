"""What is known of GTZAN: artists, folds, splits and checksums."""

import hashlib
from functools import cache
from importlib.resources import files

import pandas as pd


@cache
def gtzan_metadata():
    """What is known of GTZAN's 1000 tracks: artists, folds, the fault-filtered split, md5 sums.

    Returns
    -------
    pd.DataFrame
        `track_id`, `genre`, `artist_id` and `artist_fold` (1, 2, 3) after Foleis and Tavares
        (2020) and Sturm's catalogue, `fault_filtered_split` (train, valid, test) of Kereliuk,
        Sturm and Larsen (2015), `md5_wav`. Missing: left out as repetition or distortion.
    """
    table = pd.read_csv(
        files("melgenre.data") / "gtzan_tracks.csv",
        dtype={"artist_id": str, "artist_fold": "Int64"},
    )
    return table.assign(genre=table["track_id"].str.partition(".")[0])


def verify_gtzan(tracks):
    """Compare GTZAN's files with their known md5 sums.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `track_id` and `path`.

    Returns
    -------
    pd.DataFrame
        `track_id` and `problem` ("missing" or "changed") of each of the 1000 tracks that is not
        there as it should be. Files in `.au` have no known sum, and only count as there.
    """
    paths = tracks.dropna(subset="path").set_index("track_id")["path"]
    problems = []
    for fact in gtzan_metadata().itertuples():
        path = paths.get(fact.track_id)
        if path is None:
            problems.append((fact.track_id, "missing"))
        elif path.endswith(".wav") and _md5(path) != fact.md5_wav:
            problems.append((fact.track_id, "changed"))
    return pd.DataFrame(problems, columns=["track_id", "problem"])


def _md5(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
