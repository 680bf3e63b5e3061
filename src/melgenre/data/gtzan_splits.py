"""Published splits and folds of GTZAN: see `melgenre.data.splits`."""

import pandas as pd

from .genres import one_row_per_genre
from .leaks import warn_leaks
from .splits import SplitError

FEWEST = 5
"""Tracks per genre and part that a published split needs: with fewer it is not that split."""


def fault_filtered_split(tracks: pd.DataFrame) -> pd.DataFrame:
    """Split GTZAN as published, without its faults and with its artists separated.

    443 tracks train, 197 valid, 290 test; 70 repetitions and distortions are left out. Kereliuk,
    Sturm and Larsen, "Deep Learning and Music Adversaries" (2015).

    Parameters
    ----------
    tracks
        With `genre` and `fault_filtered_split`, as `find_tracks` fills it for GTZAN.

    Returns
    -------
    pd.DataFrame
        The tracks with the column `split`.

    Raises
    ------
    SplitError
        If these are not GTZAN's tracks, or too few of a genre are in one part.
    """
    return warn_leaks(_fault_filtered(tracks))


def fault_filtered_train_valid_split(tracks: pd.DataFrame) -> pd.DataFrame:
    """Join `train` and `valid` of the fault-filtered split, once every choice is made.

    640 tracks train, 290 test.

    Parameters
    ----------
    tracks
        As for `fault_filtered_split`.

    Returns
    -------
    pd.DataFrame
        The tracks with the column `split`.

    Raises
    ------
    SplitError
        As for `fault_filtered_split`.
    """
    split = _fault_filtered(tracks)
    return warn_leaks(split.assign(split=split["split"].replace({"valid": "train"})))


def artist_folds(tracks: pd.DataFrame) -> pd.DataFrame:
    """Fill in the published three folds of GTZAN, artist-filtered.

    948 tracks by 412 artists; 52 repetitions and distortions are left out. Foleis and Tavares,
    "Texture selection for automatic music genre classification" (2020), after Sturm's catalogue.

    Parameters
    ----------
    tracks
        With `genre` and `artist_fold`, as `find_tracks` fills it for GTZAN.

    Returns
    -------
    pd.DataFrame
        The tracks with the column `fold`: 1, 2, 3, or missing.

    Raises
    ------
    SplitError
        If these are not GTZAN's tracks, or too few of a genre are in one fold.
    """
    published = _published_column(tracks, "artist_fold", "artist-filtered folds")
    return warn_leaks(_require_all_genres(tracks.assign(fold=published), 3))


def _fault_filtered(tracks):
    """The tracks with the three parts of the fault-filtered split."""
    published = _published_column(tracks, "fault_filtered_split", "fault-filtered split")
    return _require_all_genres(tracks.assign(split=published), 3)


def _published_column(tracks, column, name):
    """A published column of GTZAN; raises where these are not GTZAN's tracks."""
    if column not in tracks or tracks[column].isna().all():
        raise SplitError(
            f"The {name} is defined for GTZAN, and this is not GTZAN. Use group_split or "
            "random_split for another collection."
        )
    return tracks[column]


def _require_all_genres(tracks, n_parts):
    """The tracks; raises if too few of a genre are in one part of a published split."""
    part = "split" if "split" in tracks else "fold"
    rows = one_row_per_genre(tracks)
    counts = pd.crosstab(rows["genre"], rows[part]).reindex(rows["genre"].unique())
    fewest = (counts if counts.shape[1] == n_parts else 0 * counts).min(axis=1).fillna(0)
    if len(fewest) < 2 or fewest.min() < FEWEST:
        raise SplitError(
            f"Too few of GTZAN's 1000 tracks are here for this split: {fewest.idxmin()!r} has "
            f"{fewest.min():.0f} in one part, and {FEWEST} are needed. Use all of GTZAN, or "
            "group_split, which separates artists."
        )
    return tracks
