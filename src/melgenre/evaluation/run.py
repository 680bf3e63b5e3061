"""The record of one training and its evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from .provenance import package_versions

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from fastai.vision.all import Learner


@dataclass
class Run:
    """One training and its evaluation.

    Attributes
    ----------
    model
        What stands in tables: the architecture and the recipe, or the name of a baseline.
    architecture, recipe
        As for `genre_learner`.
    weights
        What the training started from.
    seed
        Of the initial weights, the order of the tracks, and a split that is drawn.
    collection, train_tracks
        What the model was trained on.
    mel_settings
        Of the images; None for a model of descriptors.
    seconds
        Of the training, of all folds together.
    device, precision, threads, processes
        Of the training; `threads` on a CPU, in each of the processes.
    versions
        Of the packages.
    result
        Of `evaluate`.
    predictions
        One row per test track, of `predict_tracks`.
    learner
        The trained learner; None after a cross-validation, which has one per fold.
    checkpoint
        The file that an interrupted training resumes from.
    thresholds
        Of the probability of each genre, where a song can have several; None before the training.
    """

    model: str
    architecture: str
    recipe: str
    weights: str
    seed: int
    collection: str
    train_tracks: int
    mel_settings: dict[str, float] | None = None
    seconds: float = 0.0
    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1
    processes: int = 1
    versions: dict[str, str] = field(default_factory=package_versions)
    result: dict[str, Any] | None = None
    predictions: pd.DataFrame | None = None
    learner: Learner | None = None
    checkpoint: Path | None = None
    thresholds: dict[str, float] | None = None

    def provenance(self) -> dict[str, Any]:
        """What a result or an exported model must name: all but the result and what gave it."""
        others = ("result", "predictions", "learner", "checkpoint", "thresholds")
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in others}
