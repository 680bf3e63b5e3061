"""What a model predicts for a recording: as a whole, and window by window."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..data.table import genres_above, probability_columns
from ..errors import extra_packages

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .classifier import GenreClassifier

UNSURE = "unsure"
"""The predicted genre of a recording that is out of distribution."""


class Prediction(dict):
    """The probability of each genre, the most probable first.

    The probabilities sum to 1, except those of a multi-label model, which are independent of each
    other.

    Parameters
    ----------
    probabilities : sequence of float
        One per genre.
    ood_score
        The out-of-distribution score: about 1 for music like that of the training set.
    ood_threshold
        A recording with a greater score is out of distribution.
    caveats
        Sentences that a user should read with the prediction.
    thresholds
        Of each genre, for a multi-label model.

    Attributes
    ----------
    genre : str
        The first of `genres`, or "unsure".
    genres : list of str
        The most probable genre; of a multi-label model, those above their thresholds, the most
        probable first, and at least one. Empty if the recording is out of distribution.
    is_ood : bool
        The recording is out of distribution: its probabilities are not meaningful.
    ood_score : float
    caveats : tuple of str

    Examples
    --------
    >>> prediction = Prediction(["blues", "jazz"], [0.1, 0.9], ood_score=1.1, ood_threshold=1.6)
    >>> prediction
    {'jazz': 0.9, 'blues': 0.1}
    >>> prediction.genre
    'jazz'
    >>> Prediction(["blues", "jazz"], [0.1, 0.9], ood_score=5.2, ood_threshold=1.6).genre
    'unsure'
    >>> several = {"ood_score": 1.1, "ood_threshold": 1.6, "thresholds": {"punk": 0.3, "rock": 0.5}}
    >>> Prediction(["punk", "rock"], [0.4, 0.9], **several).genres
    ['rock', 'punk']
    """

    def __init__(
        self,
        genres: Sequence[str],
        probabilities: Sequence[float],
        ood_score: float,
        ood_threshold: float,
        caveats: Iterable[str] = (),
        thresholds: Mapping[str, float] | None = None,
    ):
        order = np.argsort(-np.asarray(probabilities), kind="stable")
        super().__init__((genres[i], float(probabilities[i])) for i in order)
        self.caveats = tuple(caveats)
        self.ood_score = float(ood_score)
        self.is_ood = self.ood_score > ood_threshold
        self.genres = list(self)[:1] if thresholds is None else genres_above(self, thresholds)
        if self.is_ood:
            self.genres = []
        self.genre = next(iter(self.genres), UNSURE)

    def __repr__(self):
        return "\n# ".join([super().__repr__(), *self.caveats])


@dataclass(repr=False, eq=False)
class Analysis:
    """The result of `GenreClassifier.analyze`: each window of a recording, and their aggregate.

    Attributes
    ----------
    classifier : GenreClassifier
    times : np.ndarray [shape=(n, 2)]
        Start and end of each window, in seconds. The last window may overlap the one before.
    images : list of np.ndarray [shape=(n_mels, columns), dtype=uint8]
        The mel-spectrogram of each window, as the network sees it.
    probabilities : np.ndarray [shape=(n, n_genres)]
        In the order of `classifier.genres`.
    ood_scores : np.ndarray [shape=(n,)]
    """

    classifier: GenreClassifier
    times: np.ndarray
    images: list[np.ndarray]
    probabilities: np.ndarray
    ood_scores: np.ndarray

    def __repr__(self):
        genres = ", ".join(self.prediction.genres) or UNSURE
        return f"<Analysis: {genres}, {len(self.times)} windows>"

    @property
    def is_ood(self) -> np.ndarray:
        """Whether each window is out of distribution [shape=(n,), dtype=bool]."""
        return self.ood_scores > self.classifier.ood_threshold

    @cached_property
    def prediction(self) -> Prediction:
        """The genres of the whole recording: the mean probabilities of its windows.

        Windows that are out of distribution (such as applause at the end) are ignored, unless they
        are at least half of all; then the recording is out of distribution itself.
        """
        inliers = ~self.is_ood
        counted = inliers if inliers.mean() > 0.5 else np.ones_like(inliers)
        return Prediction(
            self.classifier.genres,
            self.probabilities[counted].mean(axis=0),
            np.median(self.ood_scores),
            self.classifier.ood_threshold,
            self.classifier.caveats,
            self.classifier.thresholds,
        )

    @cached_property
    def timeline(self) -> pd.DataFrame:
        """One row per window: `start` and `end` in seconds, `p_<genre>`, `ood_score`, `is_ood`."""
        with extra_packages("train", "A timeline"):
            import pandas as pd

        columns = ["start", "end", *probability_columns(self.classifier.genres)]
        table = pd.DataFrame(np.hstack([self.times, self.probabilities]), columns=columns)
        return table.assign(ood_score=self.ood_scores, is_ood=self.is_ood)

    def plot(self, figure: Figure | None = None) -> Axes:
        """Plot the genres along the recording as stacked bands under its mel-spectrogram.

        Those of a multi-label model, which do not sum to 1, are rows of a heat map.

        Parameters
        ----------
        figure
            An empty figure; by default a new one of pyplot, which a notebook shows by itself.

        Returns
        -------
        The axes of the bands or rows.
        """
        with extra_packages("train", "A plot"):
            from .timeline import plot_timeline

        if figure is None:
            import matplotlib.pyplot as plt

            figure = plt.figure(figsize=(10, 4))
        images, multi_label = self._images_without_repeats(), self.classifier.thresholds is not None
        return plot_timeline(self.timeline, images, figure, multi_label=multi_label)

    def _images_without_repeats(self):
        """The images, cut to the recording's length: a short recording is repeated in its image."""
        duration = self.classifier.settings.duration
        for (start, end), image in zip(self.times, self.images, strict=True):
            share = min(1, (end - start) / duration)
            yield image[:, : max(1, round(share * image.shape[1]))]
