"""The confusion matrix as a figure, and the table of predictions that it is made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..data.table import probabilities, probability_columns
from ..evaluation.metrics import EvaluationError, confusion_matrix

if TYPE_CHECKING:
    from fastai.data.core import TfmdDL
    from fastai.learner import Learner
    from fastai.vision.all import ClassificationInterpretation
    from matplotlib.axes import Axes


def as_predictions(source: pd.DataFrame | Learner | ClassificationInterpretation) -> pd.DataFrame:
    """A table of predictions from a table, a learner or an interpretation.

    Parameters
    ----------
    source
        A table with `genre`, `predicted`, `p_<genre>`, and `path` or `image`; or a learner, which
        predicts its validation set; or an interpretation, whose DataLoader is predicted.

    Returns
    -------
    pd.DataFrame
        One row per clip, with the index 0, 1, 2, … and a column `track_id`.

    Raises
    ------
    EvaluationError
        If columns are missing, or the learner has no validation set.

    Examples
    --------
    >>> table = pd.DataFrame({"genre": ["jazz"], "predicted": ["rock"], "path": ["music/a.mp3"]})
    >>> as_predictions(table.assign(p_jazz=0.2, p_rock=0.8))["track_id"].tolist()
    ['a']
    """
    if not isinstance(source, pd.DataFrame):
        learn = getattr(source, "learn", source)
        source = _predict(learn, learn.dls.valid if source is learn else source.dl)
    missing = [column for column in ("genre", "predicted") if column not in source]
    if probabilities(source).columns.empty:
        missing.append("p_<genre>")
    if not {"path", "image"} & set(source):
        missing.append("path or image")
    if missing:
        raise EvaluationError(
            f"The table of predictions has no column {', '.join(missing)}. "
            "melgenre.predict_tracks returns a table that has all of them."
        )
    predictions = source.reset_index(drop=True)
    if "track_id" not in predictions:
        files = predictions["path" if "path" in predictions else "image"]
        predictions = predictions.assign(track_id=[Path(str(file)).stem for file in files])
    return predictions


def _predict(learn: Learner, dl: TfmdDL) -> pd.DataFrame:
    """Predict the items of a DataLoader: a table of tracks, or the list of files of other users."""
    from ..training.learner import predict_tracks  # a plot of a table needs no torch

    if not len(getattr(dl, "items", ())):
        raise EvaluationError(
            "This learner has no validation set: a learner that was loaded from a file is stored "
            "without it. Pass a table that melgenre.predict_tracks returns."
        )
    if isinstance(dl.items, pd.DataFrame) and {"genre", "image"} <= set(dl.items):
        return predict_tracks(learn, dl.items.reset_index(drop=True))
    with learn.no_bar(), learn.no_logging():
        predicted, targets = learn.get_preds(dl=dl)
    genres = list(learn.dls.vocab)
    table = pd.DataFrame(predicted.numpy(), columns=probability_columns(genres))
    return table.assign(
        image=[str(item) for item in dl.items],
        genre=[genres[i] for i in targets.tolist()],
        predicted=[genres[i] for i in predicted.argmax(dim=1).tolist()],
    )


def plot_confusion_matrix(
    predictions: pd.DataFrame, *, normalize: bool = False, title: str | None = None
) -> Axes:
    """Plot the confusion matrix, for papers and static pages.

    Parameters
    ----------
    predictions
        With `genre` and `predicted`.
    normalize
        Show percentages of each row instead of numbers of clips.
    title
        By default the accuracy and the number of clips.

    Examples
    --------
    >>> table = pd.DataFrame({"genre": ["jazz", "rock"], "predicted": ["rock", "rock"]})
    >>> plot_confusion_matrix(table).get_title()
    'accuracy 50.0 % (n = 2)'
    """
    counts = confusion_matrix(predictions)
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    side = max(3.5, 0.55 * len(counts) + 1.5)
    _, ax = plt.subplots(figsize=(side, side), layout="constrained")
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts.to_numpy() > 0):
        share = shares.iat[row, column]
        text = f"{100 * share:.0f}" if normalize else counts.iat[row, column]
        colour = "white" if share > 0.5 else "black"
        ax.text(column, row, text, ha="center", va="center", color=colour)
    names = [genre.replace("$", r"\$") for genre in counts.index]  # a dollar would start math mode
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("predicted genre" + (" (% of each row)" if normalize else ""))
    ax.set_ylabel("true genre")
    accuracy = np.trace(counts) / max(1, len(predictions))
    ax.set_title(title or f"accuracy {100 * accuracy:.1f} % (n = {len(predictions)})")
    return ax
