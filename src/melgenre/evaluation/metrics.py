"""Predictions -> accuracy with its interval, per genre, and whether one model beats another."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from ..data.genres import is_multi_label, one_row_per_genre
from ..data.leaks import find_leaks
from ..data.splits import held_out
from ..data.table import probabilities
from ..errors import MelgenreError
from .multi_label import format_multi_label_score, multi_label_scores

FEW_TRACKS = 50
"""An accuracy on fewer tracks is marked as a rough one."""
RESAMPLES, PERMUTATIONS = 2000, 10_000


class EvaluationError(MelgenreError, ValueError):
    """Predictions that give no accuracy; the message says why."""


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
    rng = np.random.default_rng(0)
    sums = by_group[rng.integers(len(by_group), size=(RESAMPLES, len(by_group)))].sum(axis=1)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    bound = min(1.0, 3 / len(by_group))
    if right.all():
        low = 1 - bound
    if not right.any():
        high = bound
    return float(low), float(high)


def artist_groups(predictions: pd.DataFrame) -> np.ndarray:
    """The unit of resampling of each row [shape=(n,)]: the artist, or the track where unknown."""
    if "artist_id" not in predictions:
        return predictions["track_id"].to_numpy()
    artists = predictions["artist_id"].astype(object)
    return artists.where(artists.notna(), "track " + predictions["track_id"]).to_numpy()


def evaluate(
    predictions: pd.DataFrame, protocol: str, *, split: pd.DataFrame | None = None
) -> dict[str, Any]:
    """Accuracy with its 95 % interval, per-genre recall, and leaks of the split.

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
        `protocol`, `tracks`, `accuracy`, `interval` (95 %), `macro_f1`, `recall` per genre, `leaks`
        (numbers of artists, recordings and duplicates in more than one part; None without
        `split`), `untested` (genres that the split has no test track of). Of predictions of several
        genres per song, the scores of `multi_label_scores` take the place of the accuracy, its
        interval and the recall.

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
            f"No track of {', '.join(map(repr, lost))} is among the {len(predictions)} predicted, "
            "so the accuracy would leave that genre out. Split the tracks again."
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
    tested = sorted(set(predictions["genre"]))
    f1 = f1_score(predictions["genre"], predictions["predicted"], labels=tested, average="macro")
    return {
        "accuracy": round(float((predictions["genre"] == predictions["predicted"]).mean()), 4),
        "interval": [round(low, 4), round(high, 4)],
        "macro_f1": round(float(f1), 4),
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
    """A result of `evaluate` as text.

    Examples
    --------
    >>> result = {"accuracy": 0.7, "interval": [0.6, 0.8], "tracks": 290, "protocol": "random"}
    >>> format_score(result)
    '70.0 % [60.0, 80.0] on 290 tracks (random)'
    """
    if "mean_average_precision" in result:
        scores = format_multi_label_score(result)
    else:
        low, high = (100 * bound for bound in result["interval"])
        scores = f"{100 * result['accuracy']:.1f} % [{low:.1f}, {high:.1f}]"
    text = f"{scores} on {result['tracks']} tracks ({result['protocol']})"
    if result.get("untested"):
        text += f"; not tested: {', '.join(result['untested'])}"
    if result["tracks"] < FEW_TRACKS:
        text += "; few tracks, so only a rough estimate"
    return text


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
