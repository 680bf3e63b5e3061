"""Iterative stratification: parts that have the same share of every genre, of several per song."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from .genres import one_row_per_genre

TRAINED = "train"
"""The part in which every genre must be."""


def stratify(
    tracks: pd.DataFrame, by: str, shares: Mapping[str | int, float], *, seed: int = 0
) -> pd.Series:
    """Draw the part of each group so that each genre is divided by the same shares.

    The genre of the fewest groups left is divided first, because it has the least choice; each of
    its groups goes to the part that lacks most tracks of this genre, and of equal ones to that
    which lacks most tracks. This is iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On
    the stratification of multi-label data", 2011), with groups in place of single examples. Where
    the parts have `train`, each genre is in it.

    Parameters
    ----------
    tracks
        With `genre`, one genre or a list, and the column `by`, whose equal values stay together.
    shares
        Of the tracks of each part; they sum to 1.

    Returns
    -------
    pd.Series
        The part of each group, by its name in the column `by`.
    """
    rows = one_row_per_genre(tracks)
    numbers, groups = pd.factorize(rows[by], sort=True)
    columns, genres = pd.factorize(rows["genre"], sort=True)
    counts = np.zeros((len(groups), len(genres)), dtype=np.int32)
    np.add.at(counts, (numbers, columns), 1)
    parts, rng = list(shares), np.random.default_rng(seed)
    lacking = np.outer(list(shares.values()), counts.sum(axis=0))
    part, left = np.full(len(groups), -1), (counts > 0).sum(axis=0)
    while left.any():
        genre = np.where(left > 0, left, np.inf).argmin()
        members = rng.permutation(np.flatnonzero((part < 0) & (counts[:, genre] > 0)))
        # Large groups first, while there is room for them.
        for group in members[np.argsort(-counts[members, genre], kind="stable")]:
            room = zip(lacking[:, genre], lacking.sum(axis=1), strict=True)
            part[group] = max(enumerate(room), key=lambda one: one[1])[0]
            lacking[part[group]] -= counts[group]
        left -= (counts[members] > 0).sum(axis=0)
    if TRAINED in parts:
        _train_every_genre(part, counts, parts.index(TRAINED))
    return pd.Series(np.array(parts, dtype=object)[part], index=groups)


def _train_every_genre(part, counts, train):
    """Move the smallest group of each genre that is in no group of the training part there."""
    for genre in np.flatnonzero(counts[part == train].sum(axis=0) == 0):
        members = np.flatnonzero(counts[:, genre])
        if not (part[members] == train).any():  # no group moved before has this genre, too
            part[members[counts[members].sum(axis=1).argmin()]] = train
