"""Temperature scaling and the out-of-distribution threshold of a trained learner."""

import copy
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import Learner
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from ..heads import SoftVote, head_with_ood_score
from ..inference.model_folder import FEWEST_CLIPS
from .cached_features import extract_features
from .feature_store import feature_blocks
from .image_loader import test_images
from .learner import is_frozen
from .multi_label import (
    USUAL_THRESHOLD,
    best_thresholds,
    genre_targets,
    is_multi_label_learner,
    thresholds_of,
)

OOD_QUANTILE = 0.99
"""Share of the held-out clips whose out-of-distribution score is below the threshold."""


CLIPS_TOGETHER = 2000
"""Clips whose feature maps are in memory at a time."""


def calibrate(learn: Learner) -> dict[str, Any]:
    """Fit the temperature and the out-of-distribution threshold on the learner's held-out clips.

    The logits, divided by one number, the temperature, give probabilities that match the accuracy
    (Guo et al., "On calibration of modern neural networks", 2017). The out-of-distribution score is
    the root mean square of the features, standardised by the head's first batch norm: a
    Mahalanobis distance with a diagonal covariance (after Lee et al., "A simple unified framework
    for detecting out-of-distribution samples", 2018).

    Returns
    -------
    dict
        `temperature`; `ood_threshold`: 99 % of the held-out clips score below it (None where they
        are fewer than `FEWEST_CLIPS`); `tracks`, their number. Where songs have several genres,
        also `thresholds`, those of `choose_thresholds` for the calibrated probabilities.
    """
    items = learn.dls.valid_ds.items
    logits, ood_scores = logits_and_scores(learn, items)
    temperature = round(fit_temperature(logits, genre_targets(learn, items)), 4)
    threshold = round(float(np.quantile(ood_scores, OOD_QUANTILE)), 4)
    calibration = {
        "temperature": temperature,
        "ood_threshold": threshold if len(items) >= FEWEST_CLIPS else None,
        "tracks": len(items),
    }
    if is_multi_label_learner(learn):
        calibration["thresholds"] = {
            genre: round(float(expit(logit(threshold) / temperature)), 6)
            for genre, threshold in thresholds_of(learn).items()
        }
    return calibration


def choose_thresholds(learn: Learner) -> dict[str, float]:
    """The thresholds with the highest F1 per genre on the clips of `valid`.

    Without `valid` every threshold is 0.5, since nothing is chosen on `test`.
    """
    items = learn.dls.valid_ds.items
    genres = list(learn.dls.vocab)
    if not (items["split"] == "valid").all():
        return dict.fromkeys(genres, USUAL_THRESHOLD)
    found = logits_and_scores(learn, items)[0].sigmoid().numpy()
    chosen = best_thresholds(genre_targets(learn, items).numpy(), found)
    return dict(zip(genres, chosen.tolist(), strict=True))


def fit_temperature(logits: torch.Tensor, genres: torch.Tensor) -> float:
    """The number that the logits are divided by for the lowest cross-entropy.

    Parameters
    ----------
    logits : torch.Tensor [shape=(n, n_genres)]
    genres : torch.Tensor [shape=(n,) or (n, n_genres)]
        The numbers of the true genres; or whether each clip has each genre, and then the
        cross-entropy is that of sigmoids.

    Returns
    -------
    float
        Between 1/e and e^3; a temperature at these bounds means a broken learner or too few clips.
    """

    several = genres.ndim == 2
    cost = binary_cross_entropy_with_logits if several else cross_entropy
    genres = genres.to(logits.dtype) if several else genres

    def loss(log_temperature):
        return cost(logits / np.exp(log_temperature), genres).item()

    return float(np.exp(minimize_scalar(loss, bounds=(-1, 3), method="bounded").x))


def logits_and_scores(learn: Learner, items: pd.DataFrame) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [shape=(n, n_genres)] and out-of-distribution scores [shape=(n,)] of some clips."""
    head = learn.model[1].eval()
    device = next(head.parameters()).device
    with torch.no_grad():
        outputs = [
            head_with_ood_score(head, features.float().to(device))
            for features in _features(learn, items)
        ]
    return tuple(torch.cat(part).cpu() for part in zip(*outputs, strict=True))


def _features(learn, items):
    """The body's features of some clips, block by block."""
    if is_frozen(learn):
        yield from feature_blocks(extract_features(learn, items))
        return
    body = learn.model[0].eval()
    for start in range(0, len(items), CLIPS_TOGETHER):
        images = test_images(learn, items.iloc[start : start + CLIPS_TOGETHER])
        yield torch.cat([torch.Tensor(body(batch)) for (batch,) in images])


def calibration_bins(confidence: np.ndarray, correct: np.ndarray, n_bins: int) -> pd.DataFrame:
    """Confidence and accuracy of predictions that are grouped by their confidence.

    Guo et al., "On calibration of modern neural networks" (2017), call the mean distance between
    the two, weighted by `clips`, the expected calibration error.

    Parameters
    ----------
    confidence : np.ndarray [shape=(n,)]
        The probability of each prediction, between 0 and 1.
    correct : np.ndarray [shape=(n,), dtype=bool]
    n_bins
        Bins of the same width between 0 and 1.

    Returns
    -------
    pd.DataFrame
        One row per bin that is not empty: `confidence` and `accuracy`, which are means, and
        `clips`, their number.

    Examples
    --------
    >>> calibration_bins(np.array([0.4, 0.9, 1.0]), np.array([False, True, False]), n_bins=2)
       confidence  accuracy  clips
    0        0.40       0.0      1
    1        0.95       0.5      2
    """
    bins = np.minimum((n_bins * confidence).astype(int), n_bins - 1)
    groups = pd.DataFrame({"confidence": confidence, "accuracy": correct}).groupby(bins)
    return groups.mean().assign(clips=groups.size())


def calibrated_copy(model: nn.Sequential, temperature: float) -> nn.Sequential:
    """Copy a network (a body and a head) to the CPU, with its logits divided by the temperature."""
    model = copy.deepcopy(model).cpu().eval()
    last = model[1][-1]
    with torch.no_grad():
        if isinstance(last, SoftVote):
            last.temperature *= temperature
            return model
        for parameter in last.parameters():
            parameter /= temperature
    return model
