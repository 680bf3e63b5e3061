"""Scores of predictions of several genres per song: average precision, F1, and an interval."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from ..data.genres import genre_lists, genre_matrix
from ..data.table import probabilities

RESAMPLES = 1000
CELLS = 2_000_000
"""Weights that are computed at a time: resamples times tracks."""


def average_precision(
    true: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Average precision of one genre, for several weightings of the tracks at a time.

    The mean of the precision at each true track, when the tracks are ranked by their scores; tracks
    of the same score have the same rank. It is that of scikit-learn's `average_precision_score`,
    without interpolation.

    Parameters
    ----------
    true : np.ndarray [shape=(n,), dtype=bool]
        Whether each track has the genre.
    scores : np.ndarray [shape=(n,)]
    weights : np.ndarray [shape=(m, n)]
        Of the tracks, one row per weighting; by default, a single one of equal weights.

    Returns
    -------
    np.ndarray [shape=(m,)]
        NaN where no track of any weight has the genre.

    Examples
    --------
    >>> average_precision(np.array([True, False, True]), np.array([0.9, 0.8, 0.1])).round(3)
    array([0.833])
    """
    if weights is None:
        weights = np.ones((1, len(true)))
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    weights = weights[:, order]
    hits = np.cumsum(weights * true[order], axis=1)[:, last_of_ties]
    ranked = np.cumsum(weights, axis=1)[:, last_of_ties]
    with np.errstate(invalid="ignore"):  # 0 / 0 where the weights are 0
        precision = np.nan_to_num(hits / ranked)
        return (np.diff(hits, axis=1, prepend=0) * precision).sum(axis=1) / hits[:, -1]


def multi_label_scores(predictions: pd.DataFrame, groups: np.ndarray) -> dict[str, Any]:
    """Mean average precision with its 95 % interval, and F1 at the thresholds of the model.

    The interval is a bootstrap over the groups. A genre that is in no track of a resample is left
    out of the mean of that resample.

    Parameters
    ----------
    predictions
        With lists in `genre` and `predicted`, and `p_<genre>`.
    groups : np.ndarray [shape=(n,)]
        The unit of resampling of each track: its artist.

    Returns
    -------
    dict
        `mean_average_precision` over the genres with a true track (macro average), its `interval`,
        `micro_f1`, `macro_f1` over the same genres, and `average_precision` per genre, the lowest
        first.
    """
    found = probabilities(predictions)
    true = genre_matrix(genre_lists(predictions), list(found))
    predicted = genre_matrix(predictions["predicted"], list(found))
    tested = true.any(axis=0)
    per_genre = {
        genre: average_precision(true[:, number], found[genre].to_numpy())[0]
        for number, genre in enumerate(found)
        if tested[number]
    }
    low, high = _interval(true[:, tested], found.to_numpy()[:, tested], groups)
    f1 = {
        average: f1_score(true[:, tested], predicted[:, tested], average=average, zero_division=0)
        for average in ("micro", "macro")
    }
    return {
        "mean_average_precision": round(float(np.mean(list(per_genre.values()))), 4),
        "interval": [round(low, 4), round(high, 4)],
        "micro_f1": round(float(f1["micro"]), 4),
        "macro_f1": round(float(f1["macro"]), 4),
        "average_precision": {
            genre: round(float(per_genre[genre]), 4)
            for genre in sorted(per_genre, key=per_genre.get)
        },
    }


def _interval(true, scores, groups):
    """The 95 % interval of the mean average precision, by bootstrap over groups."""
    numbers, names = pd.factorize(groups)
    rng, means = np.random.default_rng(0), []
    at_a_time = max(1, CELLS // len(true))
    for start in range(0, RESAMPLES, at_a_time):
        size = min(at_a_time, RESAMPLES - start)
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size)
        weights = drawn[:, numbers].astype(np.float64)
        found = [average_precision(*one, weights) for one in zip(true.T, scores.T, strict=True)]
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # a mean of nothing
            means.append(np.nanmean(found, axis=0))
    low, high = np.nanquantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def format_multi_label_score(result: dict[str, Any]) -> str:
    """The scores of `multi_label_scores` as text, without the number of tracks.

    Examples
    --------
    >>> result = {"mean_average_precision": 0.6, "interval": [0.5, 0.7], "micro_f1": 0.55}
    >>> format_multi_label_score(result | {"macro_f1": 0.41})
    'mean average precision 60.0 % [50.0, 70.0], micro F1 55.0 %, macro F1 41.0 %'
    """
    low, high = (100 * bound for bound in result["interval"])
    return (
        f"mean average precision {100 * result['mean_average_precision']:.1f} % "
        f"[{low:.1f}, {high:.1f}], micro F1 {100 * result['micro_f1']:.1f} %, "
        f"macro F1 {100 * result['macro_f1']:.1f} %"
    )
