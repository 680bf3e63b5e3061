"""Predictions -> accuracy with its interval, per genre, and whether one model beats another."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from ..data.genres import is_multi_label, one_row_per_genre
from ..data.leaks import find_leaks
from ..data.splits import held_out
from ..data.table import probabilities
from ..errors import MelgenreError
from ..text import listed
from .bootstrap import artist_groups, bootstrap_ci, macro_f1_ci
from .multi_label import format_multi_label_score, multi_label_scores

FEW_TRACKS = 50
"""An accuracy on fewer tracks is marked as a rough one."""
LARGE = 20
"""A confusion matrix of more genres is not readable cell by cell, in the order of the alphabet."""
PERMUTATIONS = 10_000


class EvaluationError(MelgenreError, ValueError):
    """Predictions that give no accuracy; the message says why."""


def macro_f1(predictions: pd.DataFrame) -> float:
    """Mean F1 of the genres with a test track: a rare genre weighs as much as a common one.

    Examples
    --------
    >>> genres = ["rock"] * 9 + ["jazz"]
    >>> round(macro_f1(pd.DataFrame({"genre": genres, "predicted": ["rock"] * 10})), 2)
    0.47
    """
    true, predicted = predictions["genre"], predictions["predicted"]
    return float(f1_score(true, predicted, labels=sorted(set(true)), average="macro"))


def evaluate(
    predictions: pd.DataFrame, protocol: str, *, split: pd.DataFrame | None = None
) -> dict[str, Any]:
    """Accuracy and macro F1 with 95 % intervals, per-genre recall, and leaks of the split.

    Parameters
    ----------
    predictions
        Of `predict_tracks`.
    protocol
        Name of the split in `melgenre.data.protocols.PROTOCOLS`.
    split
        All tracks with their `split` or `fold`, to find leaks and genres without a test track.

    Returns
    -------
    dict
        `protocol`, `tracks`, `accuracy`, `interval` (95 %), `macro_f1` (mean F1 of
        the tested genres: a rare genre counts as much as a common one), `macro_f1_interval` (95 %),
        `recall` per genre, `leaks` (numbers of artists, recordings and duplicates in more than one
        part; None without `split`), `untested` (genres that the split has no test track of). Of
        predictions of several genres per song, the scores of `multi_label_scores` take the place of
        the accuracy, the macro F1, their intervals and the recall.

    Raises
    ------
    EvaluationError
        If there are no predictions, or none of a genre that the split has test tracks of: the
        result would be misleading.
    """
    if predictions.empty:
        raise EvaluationError("No predictions, no accuracy: the split has no test track.")
    true = one_row_per_genre(predictions)["genre"]
    missing = sorted(set(probabilities(predictions)) - set(true))
    lost = sorted(set(missing) - _untested(split))
    if lost:
        raise EvaluationError(
            f"No track of {listed(map(repr, lost))} is among the {len(predictions)} predicted, "
            "so the accuracy would be that of the other genres alone. Split the tracks again."
        )
    leaks = None
    if split is not None:
        leaks = {kind: int(n) for kind, n in find_leaks(split)["kind"].value_counts().items()}
    if is_multi_label(predictions):
        scores = multi_label_scores(predictions, artist_groups(predictions))
    else:
        scores = _one_genre_scores(predictions)
    return {
        "protocol": protocol,
        "tracks": int(predictions["track_id"].nunique()),
        **scores,
        "leaks": leaks,
        "untested": missing,
    }


def _one_genre_scores(predictions):
    """The scores of predictions of one genre per song."""
    low, high = bootstrap_ci(predictions)
    return {
        "accuracy": round(float((predictions["genre"] == predictions["predicted"]).mean()), 4),
        "interval": [round(low, 4), round(high, 4)],
        "macro_f1": round(macro_f1(predictions), 4),
        "macro_f1_interval": [round(bound, 4) for bound in macro_f1_ci(predictions)],
        "recall": recall_by_genre(predictions).round(4).to_dict(),
    }


def _untested(split):
    """Genres without a test track, because their artists could not be separated."""
    if split is None or "split" not in split:
        return set()
    rows = one_row_per_genre(split)
    return set(rows["genre"]) - set(held_out(rows)["genre"])


def paired_permutation_test(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, Any]:
    """Compare two models on the same tracks by a paired sign-flip test, clustered by artist.

    If the models were equally good, the sign of their difference on an artist would be random. The
    p-value is the share of random signs that give a difference as large as the observed one (Good,
    "Permutation Tests", 2000).

    Parameters
    ----------
    first, second
        Predictions of the same tracks, of one seed or several.

    Returns
    -------
    dict
        `difference` of the accuracies (first minus second), its 95 % `interval` by bootstrap over
        artists, and `p_value` (two-sided).

    Raises
    ------
    EvaluationError
        If the tracks differ.
    """
    if set(first["track_id"]) != set(second["track_id"]):
        raise EvaluationError(
            "The predictions are of different tracks. Compare models of one protocol."
        )
    groups = pd.Series(artist_groups(first), index=first["track_id"]).groupby(level=0).first()
    right = [
        (table["genre"] == table["predicted"]).groupby(table["track_id"].to_numpy()).mean()
        for table in (first, second)
    ]
    gain = (right[0] - right[1]).groupby(groups).agg(["sum", "size"]).to_numpy()
    total, n_tracks = gain.sum(axis=0)
    rng = np.random.default_rng(0)
    flipped = rng.choice([-1, 1], size=(PERMUTATIONS, len(gain))) @ gain[:, 0]
    extreme = (np.abs(flipped) >= abs(total) - 1e-9).sum()
    sums = gain[rng.integers(len(gain), size=(PERMUTATIONS, len(gain)))].sum(axis=1)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    return {
        "difference": float(total / n_tracks),
        "interval": (float(low), float(high)),
        "p_value": float((extreme + 1) / (PERMUTATIONS + 1)),
    }


def format_score(result: dict[str, Any]) -> str:
    """A result of `evaluate` as text: the accuracy and, where the result has it, the macro F1.

    Examples
    --------
    >>> result = {"accuracy": 0.7, "interval": [0.6, 0.8], "tracks": 290, "protocol": "random"}
    >>> format_score(result)
    '70.0 % [60.0, 80.0] on 290 tracks (random)'
    >>> format_score(result | {"macro_f1": 0.5, "macro_f1_interval": [0.4, 0.6]})
    '70.0 % [60.0, 80.0], macro F1 50.0 % [40.0, 60.0], on 290 tracks (random)'
    """
    if "mean_average_precision" in result:
        text = format_multi_label_score(result)
    else:
        text = format_percent(result["accuracy"], result["interval"])
        if result.get("macro_f1") is not None:
            f1 = format_percent(result["macro_f1"], result.get("macro_f1_interval"))
            text += f", macro F1 {f1},"
    text += f" on {result['tracks']} tracks ({result['protocol']})"
    if result.get("untested"):
        text += f"; not tested: {listed(result['untested'])}"
    if result["tracks"] < FEW_TRACKS:
        text += "; few tracks, so only a rough estimate"
    return text


def format_percent(value: float, interval: Sequence[float] | None) -> str:
    """A share in percent, with its interval if it has one.

    Examples
    --------
    >>> format_percent(0.7, [0.6, 0.8])
    '70.0 % [60.0, 80.0]'
    """
    text = f"{100 * value:.1f} %"
    if interval is None:
        return text
    low, high = (100 * bound for bound in interval)
    return f"{text} [{low:.1f}, {high:.1f}]"


def recall_by_genre(predictions: pd.DataFrame) -> pd.Series:
    """Share of each genre's tracks that are predicted correctly, lowest first."""
    right = predictions["genre"] == predictions["predicted"]
    return right.groupby(predictions["genre"]).mean().sort_values().rename("recall")


def class_names(predictions: pd.DataFrame) -> list[str]:
    """Every genre of a table of predictions, sorted: true, predicted, or with a probability."""
    return sorted({*probabilities(predictions), *predictions["genre"], *predictions["predicted"]})


def confusion_matrix(predictions: pd.DataFrame) -> pd.DataFrame:
    """Count the tracks of each true genre (rows) by predicted genre (columns).

    Parameters
    ----------
    predictions
        With `genre` and `predicted`.

    Returns
    -------
    pd.DataFrame [shape=(n_genres, n_genres)]

    Raises
    ------
    EvaluationError
        If tracks have several genres.
    """
    if is_multi_label(predictions):
        raise EvaluationError(
            "A confusion matrix needs one genre per track, and these tracks have lists of genres. "
            "The average precision per genre is in evaluate(predictions, protocol)."
        )
    genres = class_names(predictions)
    counts = pd.crosstab(predictions["genre"], predictions["predicted"])
    return counts.reindex(index=genres, columns=genres, fill_value=0)
