"""What a split leaks: artists, recordings and exact duplicates that occur in two of its parts."""

import warnings

import pandas as pd

from ..errors import MelgenreWarning

LEAK_COLUMNS = {"artist_id": "artist", "recording_id": "recording", "md5_wav": "exact duplicate"}
"""Columns whose equal values must not occur in two parts, and what they identify."""

MOST_NAMED = 3
"""Examples per kind of leak in a warning."""


class LeakWarning(MelgenreWarning):
    """A split whose parts share artists, recordings or duplicates."""


def find_leaks(tracks: pd.DataFrame) -> pd.DataFrame:
    """Find the artists, recordings and exact duplicates that occur in more than one part.

    Parameters
    ----------
    tracks
        With `split` or `fold`, and any of the columns in `LEAK_COLUMNS`.

    Returns
    -------
    pd.DataFrame
        One row per leak: `kind`, `name`, the number of `tracks`, and in `where` the track ids by
        part.
    """
    part = "split" if "split" in tracks else "fold"
    leaks = []
    for column, kind in LEAK_COLUMNS.items():
        if column not in tracks:
            continue
        known = tracks.dropna(subset=[column, part])
        shared = known.groupby(column)[part].transform("nunique") > 1
        for name, members in known[shared].groupby(column):
            where = members.groupby(part)["track_id"].agg(lambda ids: sorted(set(ids))).to_dict()
            leaks.append((kind, name, members["track_id"].nunique(), where))
    return pd.DataFrame(leaks, columns=["kind", "name", "tracks", "where"])


def describe_leaks(tracks: pd.DataFrame) -> str:
    """Summarise `find_leaks` in a sentence; an empty string if there are none."""
    leaks = find_leaks(tracks)
    if leaks.empty:
        return ""
    parts = []
    for kind, of_kind in leaks.groupby("kind", sort=False):
        names = ", ".join(min(sum(where.values(), [])) for where in of_kind["where"][:MOST_NAMED])
        more = ", …" if len(of_kind) > MOST_NAMED else ""
        plural = "" if len(of_kind) == 1 else "s"
        parts.append(
            f"{len(of_kind)} {kind}{plural} ({of_kind['tracks'].sum()} tracks: {names}{more})"
        )
    return (
        f"This split leaks: {'; '.join(parts)} in more than one part. Accuracy on it is "
        "optimistically biased. find_leaks(split) lists them all."
    )


def warn_leaks(tracks: pd.DataFrame) -> pd.DataFrame:
    """Return the tracks; give a `LeakWarning` if their split leaks."""
    if sentence := describe_leaks(tracks):
        warnings.warn(sentence, LeakWarning, stacklevel=3)
    return tracks
