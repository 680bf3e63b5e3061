"""Songs of several genres: `genre` is a list in the table of a multi-label collection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pandas.api.types import is_list_like

from ..text import escape_control
from .metadata import CollectionError
from .table import SEPARATOR


def is_multi_label(tracks: pd.DataFrame) -> bool:
    """Whether a table of tracks has lists of genres.

    Examples
    --------
    >>> is_multi_label(pd.DataFrame({"genre": [["punk", "rock"], ["jazz"]]}))
    True
    """
    return bool(tracks["genre"].map(is_list_like).any())


def genre_lists(tracks: pd.DataFrame) -> pd.Series:
    """The genres of each track as a sorted list without duplicates.

    Raises
    ------
    CollectionError
        If a track has no genre.
    """
    lists = tracks["genre"].map(lambda one: sorted(set(one)) if is_list_like(one) else [one])
    if not lists.map(bool).all():
        without = tracks.loc[~lists.map(bool), "track_id"].iloc[0]
        raise CollectionError(
            f"Track {without!r} has an empty list of genres. Give it a genre, or leave it out."
        )
    return lists


def one_row_per_genre(tracks: pd.DataFrame) -> pd.DataFrame:
    """The table with one row for each genre of a track; unchanged where each track has one genre.

    Examples
    --------
    >>> tracks = pd.DataFrame({"track_id": ["a", "b"], "genre": [["punk", "rock"], ["jazz"]]})
    >>> one_row_per_genre(tracks)
      track_id genre
    0        a  punk
    0        a  rock
    1        b  jazz
    """
    if not is_multi_label(tracks):
        return tracks
    return tracks.assign(genre=genre_lists(tracks)).explode("genre")


def genre_matrix(lists: pd.Series, genres: Sequence[str]) -> np.ndarray:
    """Whether each track has each genre.

    Parameters
    ----------
    lists
        Lists of genres; those that are not in `genres` are left out.
    genres
        One per column.

    Returns
    -------
    np.ndarray [shape=(n, n_genres), dtype=bool]

    Examples
    --------
    >>> genre_matrix(pd.Series([["punk", "rock"], ["jazz"]]), ["jazz", "rock"])
    array([[False,  True],
           [ True, False]])
    """
    matrix = np.zeros((len(lists), len(genres)), dtype=bool)
    named = lists.reset_index(drop=True).explode()
    columns = pd.Categorical(named, categories=list(genres)).codes
    matrix[named.index[columns >= 0], columns[columns >= 0]] = True
    return matrix


def split_genres(text: str) -> list[str]:
    """The genres in a cell of a CSV, sorted.

    Examples
    --------
    >>> split_genres("rock; punk;rock;")
    ['punk', 'rock']
    """
    names = (name.strip() for name in text.split(SEPARATOR.strip()))
    return sorted({escape_control(name) for name in names if name})


def genres_as_text(tracks: pd.DataFrame) -> pd.DataFrame:
    """The table with each list of genres as one text for a CSV, such as `punk; rock`."""
    if not is_multi_label(tracks):
        return tracks
    return tracks.assign(genre=genre_lists(tracks).map(SEPARATOR.join))
