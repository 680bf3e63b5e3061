"""Predictions -> accuracy with its interval, per genre, and whether one model beats another."""

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from ..data.splits import find_leaks, held_out
from ..errors import MelgenreError


class EvaluationError(MelgenreError, ValueError):
    """Predictions that give no accuracy; the message says why."""


FEW_TRACKS = 50
"""A figure from fewer tracks than these is called rough."""


def bootstrap_ci(predictions, *, resamples=2000, seed=0):
    """95 % interval of the accuracy, by bootstrap over artists (over tracks of unknown artists).

    Tracks of one artist succeed and fail together, so an artist is drawn whole. Efron and
    Tibshirani, "An Introduction to the Bootstrap" (1993). Where all tracks are right, or none, a
    bootstrap sees no spread; there the bound is three over the number of artists (Hanley and
    Lippman-Hand, "If nothing goes wrong, is everything all right?", 1983).

    Parameters
    ----------
    predictions : pd.DataFrame
        With `track_id`, `genre`, `predicted`, and possibly `artist_id`; a track that several
        seeds have judged stands there several times.
    resamples, seed : int

    Returns
    -------
    tuple of float
        Lower and upper bound, between 0 and 1.
    """
    right = predictions["genre"] == predictions["predicted"]
    by_group = right.groupby(_groups(predictions)).agg(["sum", "size"]).to_numpy()
    drawn = np.random.default_rng(seed).integers(len(by_group), size=(resamples, len(by_group)))
    sums = by_group[drawn].sum(axis=1)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    unseen = min(1.0, 3 / len(by_group))
    if right.all():
        low = 1 - unseen
    if not right.any():
        high = unseen
    return float(low), float(high)


def _groups(predictions):
    """Whose tracks stand and fall together: the artist's, or the track alone."""
    if "artist_id" not in predictions:
        return predictions["track_id"].to_numpy()
    artists = predictions["artist_id"].astype(object)
    return artists.where(artists.notna(), "track " + predictions["track_id"]).to_numpy()


def evaluate(predictions, protocol, *, split=None):
    """The figure of a table of predictions, with what is needed to believe it.

    Parameters
    ----------
    predictions : pd.DataFrame
        Of `predict_tracks`.
    protocol : str
        Name of the split in `melgenre.data.splits.PROTOCOLS`.
    split : pd.DataFrame
        All tracks with their `split` or `fold`: what leaks, and which genres are only learned from.

    Returns
    -------
    dict
        `protocol`, `tracks`, `accuracy`, `interval` (95 %), `macro_f1`, `recall` of each genre,
        `leaks` (how many artists, recordings and duplicates on two sides; None if not asked),
        `untested` (genres that the split leaves to learn from alone).

    Raises
    ------
    EvaluationError
        If nothing was judged, or no track of a genre was that the split has to judge by: such a
        figure would look real.
    """
    if predictions.empty:
        raise EvaluationError("No predictions, no accuracy: the split left no track to judge by.")
    genres = {column.removeprefix("p_") for column in predictions if column.startswith("p_")}
    missing = sorted(genres - set(predictions["genre"]))
    lost = sorted(set(missing) - _untested(split))
    if lost:
        raise EvaluationError(
            f"No track of {', '.join(map(repr, lost))} is among the {len(predictions)} judged, "
            "so an accuracy would leave that genre out. Split the tracks anew."
        )
    leaks = None
    if split is not None:
        leaks = {kind: int(n) for kind, n in find_leaks(split)["kind"].value_counts().items()}
    low, high = bootstrap_ci(predictions)
    tested = sorted(set(predictions["genre"]))
    f1 = f1_score(predictions["genre"], predictions["predicted"], labels=tested, average="macro")
    return {
        "protocol": protocol,
        "tracks": int(predictions["track_id"].nunique()),
        "accuracy": round(float((predictions["genre"] == predictions["predicted"]).mean()), 4),
        "interval": [round(low, 4), round(high, 4)],
        "macro_f1": round(float(f1), 4),
        "recall": recall_by_genre(predictions).round(4).to_dict(),
        "leaks": leaks,
        "untested": missing,
    }


def _untested(split):
    """Genres of which all tracks are learned from, because artists could not be kept apart."""
    if split is None or "split" not in split:
        return set()
    return set(split["genre"]) - set(held_out(split)["genre"])


def paired_permutation_test(first, second, *, resamples=10_000, seed=0):
    """Is the first model better than the second, on the same tracks?

    A paired test: were the two alike, it would be chance which of them is right about an artist.
    So the two are exchanged at random, artist by artist, and counted how often the difference
    comes out as large as it did (a sign-flip permutation test; Good, "Permutation Tests", 2000).

    Parameters
    ----------
    first, second : pd.DataFrame
        Predictions of the same tracks, of one seed or several.
    resamples, seed : int

    Returns
    -------
    dict
        `difference` of the accuracies (first less second), its 95 % `interval` by bootstrap over
        artists, and `p_value` (two-sided).

    Raises
    ------
    EvaluationError
        If the two have not judged the same tracks.
    """
    if set(first["track_id"]) != set(second["track_id"]):
        raise EvaluationError(
            "The two have not judged the same tracks: compare within one protocol."
        )
    groups = pd.Series(_groups(first), index=first["track_id"]).groupby(level=0).first()
    right = [
        (table["genre"] == table["predicted"]).groupby(table["track_id"].to_numpy()).mean()
        for table in (first, second)
    ]
    gain = (right[0] - right[1]).groupby(groups).agg(["sum", "size"]).to_numpy()
    total, n_tracks = gain.sum(axis=0)
    rng = np.random.default_rng(seed)
    flipped = rng.choice([-1, 1], size=(resamples, len(gain))) @ gain[:, 0]
    extreme = (np.abs(flipped) >= abs(total) - 1e-9).sum()
    sums = gain[rng.integers(len(gain), size=(resamples, len(gain)))].sum(axis=1)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    return {
        "difference": float(total / n_tracks),
        "interval": (float(low), float(high)),
        "p_value": float((extreme + 1) / (resamples + 1)),
    }


def format_score(result):
    """A result in words: "52.4 % [47.0, 57.9] of 290 tracks (fault-filtered)"."""
    low, high = (100 * bound for bound in result["interval"])
    words = (
        f"{100 * result['accuracy']:.1f} % [{low:.1f}, {high:.1f}] of {result['tracks']} tracks "
        f"({result['protocol']})"
    )
    if result.get("untested"):
        words += f"; not tested: {', '.join(result['untested'])}"
    if result["tracks"] < FEW_TRACKS:
        words += "; few tracks, so a rough figure"
    return words


def recall_by_genre(predictions):
    """Share of each genre's tracks that were called by its name, lowest first."""
    right = predictions["genre"] == predictions["predicted"]
    return right.groupby(predictions["genre"]).mean().sort_values().rename("recall")


def class_names(results):
    """Every genre of a table of results, sorted: true, called, or only a `p_<genre>`."""
    known = {str(column)[2:] for column in results if str(column).startswith("p_")}
    return sorted(known | set(results["genre"]) | set(results["predicted"]))


def confusion_matrix(results):
    """Clips of each genre by what they were called.

    Parameters
    ----------
    results : pd.DataFrame
        With `genre` and `predicted`.

    Returns
    -------
    pd.DataFrame [shape=(n_genres, n_genres)]
        Rows are what a clip is, columns what it was called.
    """
    genres = class_names(results)
    counts = pd.crosstab(results["genre"], results["predicted"])
    return counts.reindex(index=genres, columns=genres, fill_value=0)
