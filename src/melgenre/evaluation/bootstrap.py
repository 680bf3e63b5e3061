"""Intervals of an accuracy and of a macro F1, by bootstrap over artists."""

import itertools

import numpy as np
import pandas as pd

RESAMPLES = 2000
BLOCK = 2_000_000
"""Random numbers that a bootstrap has in memory at once."""


def bootstrap_ci(predictions: pd.DataFrame) -> tuple[float, float]:
    """95 % confidence interval of the accuracy, by bootstrap over artists.

    Errors are correlated within an artist, so artists are resampled, or tracks where the artist is
    unknown. Efron and Tibshirani, "An Introduction to the Bootstrap" (1993). Where all tracks are
    right, or none, a bootstrap has no variance; there the bound is three over the number of artists
    (Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?", 1983).

    Parameters
    ----------
    predictions
        With `track_id`, `genre`, `predicted`, and possibly `artist_id`. A track has one row per
        seed.

    Returns
    -------
    tuple of float
        Lower and upper bound, between 0 and 1.
    """
    right = predictions["genre"] == predictions["predicted"]
    by_group = right.groupby(artist_groups(predictions)).agg(["sum", "size"]).to_numpy()
    sums = np.concatenate([by_group[drawn].sum(axis=1) for drawn in _resamples(len(by_group))])
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    bound = min(1.0, 3 / len(by_group))
    if right.all():
        low = 1 - bound
    if not right.any():
        high = bound
    return float(low), float(high)


def macro_f1_ci(predictions: pd.DataFrame) -> tuple[float, float]:
    """95 % confidence interval of the macro F1, by the same bootstrap over artists.

    A genre without a track in a resample is left out of its mean.

    Parameters
    ----------
    predictions
        As for `bootstrap_ci`.

    Returns
    -------
    tuple of float
        Lower and upper bound, between 0 and 1.
    """
    genres = sorted({*predictions["genre"], *predictions["predicted"]})
    true, predicted = (
        pd.Categorical(predictions[column], genres).codes for column in ("genre", "predicted")
    )
    groups = pd.factorize(artist_groups(predictions))[0]
    right, n_groups, scores = true == predicted, groups.max() + 1, []
    for drawn in itertools.chain.from_iterable(_resamples(n_groups)):
        weight = np.bincount(drawn, minlength=n_groups)[groups]
        of_true = np.bincount(true, weight, len(genres))
        of_predicted = np.bincount(predicted, weight, len(genres))
        hits = np.bincount(true[right], weight[right], len(genres))
        tested = of_true > 0
        scores.append(np.mean(2 * hits[tested] / (of_true + of_predicted)[tested]))
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)


def artist_groups(predictions: pd.DataFrame) -> np.ndarray:
    """The unit of resampling of each row [shape=(n,)]: the artist, or the track where unknown."""
    if "artist_id" not in predictions:
        return predictions["track_id"].to_numpy()
    artists = predictions["artist_id"].astype(object)
    return artists.where(artists.notna(), "track " + predictions["track_id"]).to_numpy()


def _resamples(n_groups):
    """The groups of each resample of a bootstrap, in blocks [shape=(rows, n_groups)] for memory."""
    rng = np.random.default_rng(0)
    rows = max(1, BLOCK // n_groups)
    for start in range(0, RESAMPLES, rows):
        yield rng.integers(n_groups, size=(min(rows, RESAMPLES - start), n_groups))
