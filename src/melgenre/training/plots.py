"""Plots of training and calibration: losses, confidence, and out-of-distribution scores."""

from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from fastai.vision.all import Learner
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.special import expit, logit

from ..data.table import probabilities
from ..errors import MelgenreError
from ..heads import head_with_ood_score
from .calibration import OOD_QUANTILE, calibrate, calibration_bins, logits_and_scores
from .image_loader import image_batch
from .learner import predict_tracks
from .multi_label import genre_targets, is_multi_label_learner

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of Okabe and Ito, "Color universal design" (2008): readers with colour blindness tell them apart.
"""

CLIPS_PER_BIN = 10
"""With fewer clips than this in each of ten bins, a reliability diagram has five bins."""


class RecordError(MelgenreError, ValueError):
    """A learner without what a plot shows: the record of its training, or validation clips."""


def plot_learning_curves(learners: dict[str, Learner]) -> Axes:
    """Plot the loss of some trained learners after each epoch.

    Parameters
    ----------
    learners
        A name and a learner that `fit` has trained in this session. Of a learner that trained its
        head and then all layers, the record is that of all layers.

    Returns
    -------
    matplotlib.axes.Axes
        The training loss is dashed: fastai's moving average over the batches, with augmentation
        and dropout, so it can be greater than the validation loss.

    Raises
    ------
    RecordError
        If a learner has not been trained, or was loaded from a file.
    """
    records = {name: _losses(name, learn) for name, learn in learners.items()}
    _, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    for (name, losses), colour in zip(records.items(), cycle(COLOURS)):
        label = name.replace("$", r"\$")  # a dollar would start math mode
        ax.plot(losses.index, losses["valid_loss"], color=colour, label=f"{label}, validation")
        ax.plot(losses.index, losses["train_loss"], "--", color=colour, label=f"{label}, training")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="loss (cross-entropy)", ylim=(0, None))
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return ax


def _losses(name, learn):
    """The table of `train_loss` and `valid_loss`, from epoch 1."""
    recorder = getattr(learn, "recorder", None)
    names = list(getattr(recorder, "metric_names", []))[1:-1]  # without the epoch and the time
    # fastai's `get_preds` replaces the record by one row without the training loss.
    rows = [row for row in getattr(recorder, "values", []) if len(row) == len(names)]
    if not rows:
        raise RecordError(
            f"The learner {name!r} has no record of a training: it is not trained, was loaded from "
            "a file, or fastai's get_preds has replaced the record. Plot it after mg.fit(learn)."
        )
    return pd.DataFrame(rows, columns=names, index=range(1, len(rows) + 1))


def plot_reliability(learn: Learner) -> Axes:
    """Plot a reliability diagram of the validation clips, before and after calibration.

    Of clips that are predicted with a confidence of 70 %, 70 % should be correct: then the points
    lie on the diagonal (Guo et al., "On calibration of modern neural networks", 2017). Points below
    it are overconfident. Where songs have several genres, each pair of a clip and a genre is a
    prediction of its own. The temperature is fitted on these same clips, so the error after
    calibration is a little optimistic.

    Parameters
    ----------
    learn
        Of `melgenre.training.learner.genre_learner`, trained.

    Returns
    -------
    matplotlib.axes.Axes
        The area of a point is the share of the clips in its bin; the expected calibration error
        (ECE) is in the legend.

    Raises
    ------
    RecordError
        If the learner was loaded from a file, without its validation clips.
    """
    predictions = predict_tracks(learn, _validation_clips(learn))
    temperature = calibrate(learn)["temperature"]
    before = probabilities(predictions).to_numpy()
    if is_multi_label_learner(learn):  # each pair of a clip and a genre is a prediction
        correct = genre_targets(learn, predictions).numpy().ravel()
        before = before.reshape(-1, 1)
        after = expit(logit(before) / temperature)
    else:
        correct = (predictions["predicted"] == predictions["genre"]).to_numpy()
        after = before ** (1 / temperature)  # logits that are divided by the temperature
        after /= after.sum(axis=1, keepdims=True)
    n_bins = 10 if len(correct) >= 10 * CLIPS_PER_BIN else 5
    _, ax = plt.subplots(figsize=(4.5, 5.2), layout="constrained")
    ax.plot([0, 1], [0, 1], ":", color="grey", label="perfect calibration")
    curves = {"before": before, f"after (temperature {temperature:.2f})": after}
    for (name, table), colour, marker in zip(curves.items(), COLOURS, "os", strict=False):
        bins = calibration_bins(table.max(axis=1), correct, n_bins)
        share = bins["clips"] / len(correct)
        error = (share * (bins["accuracy"] - bins["confidence"]).abs()).sum()
        label = f"{name}: ECE {100 * error:.1f} %"
        ax.scatter(
            bins["confidence"],
            bins["accuracy"],
            s=10 + 600 * share,
            color=colour,
            marker=marker,
            alpha=0.6,
            clip_on=False,
        )
        ax.plot([], [], marker, color=colour, label=label)
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.grid(alpha=0.3)
    ax.set_title(f"{len(predictions)} validation clips in {n_bins} bins", fontsize=10)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)
    return ax


def plot_ood_scores(learn: Learner, sounds: dict[str, str | Path | np.ndarray]) -> Axes:
    """Plot the out-of-distribution scores of the validation clips, and those of other sounds.

    Parameters
    ----------
    learn
        Of `melgenre.training.learner.genre_learner`, trained.
    sounds : dict of str, Path or np.ndarray [shape=(n_mels, columns), dtype=uint8]
        A name and an image, such as that of silence or white noise.

    Returns
    -------
    matplotlib.axes.Axes
        With a histogram of the clips, their 99th percentile (the threshold of `calibrate`) and
        a labelled line per sound.

    Raises
    ------
    RecordError
        If the learner was loaded from a file, without its validation clips.
    """
    scores = logits_and_scores(learn, _validation_clips(learn))[1].numpy()
    others = {name: _ood_score(learn, image) for name, image in sounds.items()}
    threshold = float(np.quantile(scores, OOD_QUANTILE))
    _, ax = plt.subplots(figsize=(8, 3 + 0.2 * len(others)), layout="constrained")
    ax.hist(scores, bins=20, color=COLOURS[5], label=f"{len(scores)} validation clips")
    ax.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.2f}")
    for (name, score), colour in zip(others.items(), cycle(COLOURS[:5])):
        label = name.replace("$", r"\$")  # a dollar would start math mode
        ax.axvline(score, color=colour, label=f"{label} {score:.2f}")
    ax.set(xlabel="out-of-distribution score", ylabel="clips", xlim=(0, None))
    ax.legend(bbox_to_anchor=(1, 1), loc="upper left", frameon=False)
    return ax


def _ood_score(learn, image):
    """The out-of-distribution score of one image."""
    body, head = learn.model.eval()
    device = next(head.parameters()).device
    with torch.no_grad():
        return head_with_ood_score(head, body(image_batch(learn, image).to(device)))[1].item()


def _validation_clips(learn):
    """The table of the validation clips."""
    items = getattr(learn.dls.valid_ds, "items", ())
    if not len(items):
        raise RecordError(
            "This learner has no validation clips: a learner that was loaded from a file is stored "
            "without them. Plot it after mg.fit(learn)."
        )
    return items.reset_index(drop=True)
