"""Predictions -> accuracy with its interval, per genre, and the results file."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from .splits import shared_artists


def held_out(tracks):
    """The tracks that a figure is taken from: `test` where the split has one, else `valid`."""
    side = "test" if (tracks["split"] == "test").any() else "valid"
    return tracks[tracks["split"] == side].reset_index(drop=True)


def predict_tracks(learn, tracks):
    """Let a learner say the genre of each track's picture.

    Parameters
    ----------
    learn : fastai.learner.Learner
        Trained here or loaded with `load_learner`.
    tracks : pd.DataFrame
        With `picture`.

    Returns
    -------
    pd.DataFrame
        The tracks with `predicted` and a probability `p_<genre>` for each genre.
    """
    with learn.no_bar(), learn.no_logging():
        probabilities, _ = learn.get_preds(dl=learn.dls.test_dl(tracks, num_workers=0))
    genres = list(learn.dls.vocab)
    columns = pd.DataFrame(
        probabilities.numpy(), columns=[f"p_{genre}" for genre in genres], index=tracks.index
    )
    predicted = [genres[i] for i in probabilities.argmax(dim=1).tolist()]
    return pd.concat([tracks.assign(predicted=predicted), columns], axis=1)


def accuracy_interval(predictions, *, resamples=2000, seed=0):
    """95 % interval of the accuracy, by bootstrap over artists (over tracks of unknown artists).

    Tracks of one artist succeed and fail together, so an artist is drawn whole.

    Parameters
    ----------
    predictions : pd.DataFrame
        With `track_id`, `genre`, `predicted`, and possibly `artist_id`.
    resamples, seed : int

    Returns
    -------
    tuple of float
        Lower and upper bound, between 0 and 1.
    """
    groups = predictions["track_id"]
    if "artist_id" in predictions:
        groups = predictions["artist_id"].fillna(groups)
    right = predictions["genre"] == predictions["predicted"]
    by_group = right.groupby(groups.to_numpy()).agg(["sum", "size"]).to_numpy()
    drawn = np.random.default_rng(seed).integers(len(by_group), size=(resamples, len(by_group)))
    sums = by_group[drawn].sum(axis=1)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    return float(low), float(high)


def score(predictions, protocol, *, split=None):
    """The figure of a table of predictions, with what is needed to believe it.

    Parameters
    ----------
    predictions : pd.DataFrame
        Of `predict_tracks`.
    protocol : str
        Name of the split in `melgenre.splits.PROTOCOLS`.
    split : pd.DataFrame
        All tracks with their `split`, to tell how many artists stand on two sides.

    Returns
    -------
    dict
        `protocol`, `tracks`, `accuracy`, `interval` (95 %), `shared_artists` (None if unknown).
    """
    if predictions.empty:
        raise ValueError("No predictions, no accuracy: the split left no track to judge by.")
    leaks = None
    if split is not None and "artist_id" in split and split["artist_id"].notna().any():
        leaks = len(shared_artists(split))
    low, high = accuracy_interval(predictions)
    return {
        "protocol": protocol,
        "tracks": len(predictions),
        "accuracy": round(float((predictions["genre"] == predictions["predicted"]).mean()), 4),
        "interval": [round(low, 4), round(high, 4)],
        "shared_artists": leaks,
    }


def describe_score(result):
    """A result in words: "52.4 % [47.0, 57.9] of 290 tracks (fault-filtered)"."""
    low, high = (100 * bound for bound in result["interval"])
    return (
        f"{100 * result['accuracy']:.1f} % [{low:.1f}, {high:.1f}] of {result['tracks']} tracks "
        f"({result['protocol']})"
    )


def recall_by_genre(predictions):
    """Share of each genre's tracks that were called by its name, lowest first."""
    right = predictions["genre"] == predictions["predicted"]
    return right.groupby(predictions["genre"]).mean().sort_values().rename("recall")


def record_result(folder, training, result, predictions):
    """Append a run to `<folder>/results.jsonl`, and write its predictions beside it.

    Parameters
    ----------
    folder : str or Path
    training : dict
        Of `melgenre.learner.describe_training`.
    result : dict
        Of `score`.
    predictions : pd.DataFrame
        Of `predict_tracks`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = "_".join(str(part) for part in (
        training["collection"], result["protocol"], training["architecture"], training["recipe"],
        training["seed"],
    ))  # fmt: skip
    line = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **training, **result, "commit": _commit(), "predictions": f"{name}.csv",
    }  # fmt: skip
    with (folder / "results.jsonl").open("a") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
    kept = ["track_id", "genre", "predicted", *(c for c in predictions if c.startswith("p_"))]
    predictions[kept].round(4).to_csv(folder / f"{name}.csv", index=False)


def _commit():
    """Short name of the commit whose package made a figure, None outside a checkout."""
    package = str(Path(__file__).parent)

    def git(*arguments):
        command = ["git", "-C", package, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Notebooks change while they run; what counts is whether the package is as committed.
        changed = "-dirty" if git("status", "--porcelain", ".") else ""
        return git("rev-parse", "--short", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return None
