"""The confusion matrix as a figure, and the table of predictions that it is made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm
from scipy.cluster.hierarchy import leaves_list, linkage

from ..data.table import probabilities, probability_columns
from ..evaluation.metrics import LARGE, EvaluationError, confusion_matrix, macro_f1

if TYPE_CHECKING:
    from fastai.data.core import TfmdDL
    from fastai.learner import Learner
    from fastai.vision.all import ClassificationInterpretation
    from matplotlib.axes import Axes

SMALLEST_CELL = 0.09
"""Of a matrix of many genres, in inches: 6.5 points, as high as its name in small letters."""


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


def ordered_matrix(predictions: pd.DataFrame, clustered: bool | None = None) -> pd.DataFrame:
    """The confusion matrix, with its genres in an order that can be read.

    Many genres are clustered: genres that are confused with each other become neighbours, so the
    errors lie in blocks along the diagonal. Average linkage of the cosine distances between the
    square roots of the genres' rows and columns, in shares of a row; the leaves are in the optimal
    order of Bar-Joseph, Gifford and Jaakkola, "Fast optimal leaf ordering for hierarchical
    clustering" (2001), as SciPy computes it.

    Parameters
    ----------
    predictions
        With `genre` and `predicted`.
    clustered
        None: only for more than `melgenre.evaluation.metrics.LARGE` genres; the order of others is
        alphabetical.

    Returns
    -------
    pd.DataFrame [shape=(n_genres, n_genres)]
        Rows and columns are in the same order.
    """
    counts = confusion_matrix(predictions)
    if clustered is None:
        clustered = len(counts) > LARGE
    if not clustered or len(counts) < 3:
        return counts
    shares = _shares(counts).to_numpy()
    # A genre without clips has no confusions: without the diagonal its distances would be 0 / 0.
    profiles = np.sqrt(shares + shares.T + 1e-9 * np.eye(len(shares)))
    tree = linkage(profiles, method="average", metric="cosine", optimal_ordering=True)
    order = leaves_list(tree)
    return counts.iloc[order, order]


def _shares(counts):
    """The counts of each row as shares of it; an empty row stays empty."""
    return counts.div(counts.sum(axis=1).clip(lower=1), axis=0)


def plot_confusion_matrix(
    predictions: pd.DataFrame,
    *,
    normalize: bool = False,
    clustered: bool | None = None,
    title: str | None = None,
) -> Axes:
    """Plot the confusion matrix, for papers and static pages.

    Of more than 20 genres the cells are too small for numbers: their colour alone shows the share
    of the row, on a scale on which 5 % are still visible.

    Parameters
    ----------
    predictions
        With `genre` and `predicted`.
    normalize
        Show percentages of each row instead of numbers of clips.
    clustered
        Order of the genres, as for `ordered_matrix`: by default, more than 20 are clustered.
    title
        By default the accuracy and the number of clips, and of more than 20 genres the macro F1.

    Examples
    --------
    >>> table = pd.DataFrame({"genre": ["jazz", "rock"], "predicted": ["rock", "rock"]})
    >>> plot_confusion_matrix(table).get_title()
    'accuracy 50.0 % (n = 2)'
    """
    counts = ordered_matrix(predictions, clustered)
    ax = _draw_colours(counts) if len(counts) > LARGE else _draw_numbers(counts, normalize)
    names = [genre.replace("$", r"\$") for genre in counts.index]  # a dollar would start math mode
    ax.set_xticks(range(len(names)), names, rotation_mode="anchor", ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("predicted genre" + (" (% of each row)" if normalize else ""))
    ax.set_ylabel("true genre")
    ax.set_title(title or _title(predictions, with_f1=len(counts) > LARGE))
    return ax


def _title(predictions, with_f1):
    """The accuracy, the macro F1 on request, and the number of clips."""
    accuracy = (predictions["genre"] == predictions["predicted"]).mean()
    f1 = f", macro F1 {100 * macro_f1(predictions):.1f} %" if with_f1 else ""
    return f"accuracy {100 * accuracy:.1f} %{f1} (n = {len(predictions)})"


def _draw_numbers(counts, normalize):
    """A matrix with a number in each cell."""
    shares = _shares(counts)
    side = max(3.5, 0.55 * len(counts) + 1.5)
    _, ax = plt.subplots(figsize=(side, side), layout="constrained")
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts.to_numpy() > 0):
        share = shares.iat[row, column]
        text = f"{100 * share:.0f}" if normalize else counts.iat[row, column]
        colour = "white" if share > 0.5 else "black"
        ax.text(column, row, text, ha="center", va="center", color=colour)
    ax.tick_params(axis="x", labelrotation=45)
    return ax


def _draw_colours(counts):
    """A matrix of many genres: colours with a scale, small names, and lines to follow."""
    cell = max(SMALLEST_CELL, min(0.3, 9 / len(counts)))
    side = cell * len(counts) + 2
    _, ax = plt.subplots(figsize=(side + 1, side), layout="constrained")
    image = ax.imshow(_shares(counts), cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    scale = ax.figure.colorbar(image, ax=ax, shrink=0.4, aspect=15, pad=0.01)
    percents = np.array([0, 1, 5, 10, 25, 50, 100])
    scale.set_ticks(percents / 100, labels=percents)
    scale.set_label("% of the row")
    ax.tick_params(labelsize=min(10, 65 * cell), length=1, pad=1)
    ax.tick_params(axis="x", labelrotation=90)
    for place in np.arange(9.5, len(counts) - 1, 10):
        ax.axhline(place, color="0.85", linewidth=0.4)
        ax.axvline(place, color="0.85", linewidth=0.4)
    return ax
