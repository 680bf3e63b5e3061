"""Learners that predict several genres per song: their targets and their thresholds."""

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import BCEWithLogitsLossFlat, Learner

from ..data.genres import genre_lists, genre_matrix, is_multi_label
from ..data.table import genres_above

FEWEST_SONGS = 5
"""Validation songs of a genre that its own threshold needs."""

USUAL_THRESHOLD = 0.5


def is_multi_label_learner(learn: Learner) -> bool:
    """Whether a learner predicts several genres per song: then its loss is that of sigmoids."""
    return isinstance(learn.loss_func, BCEWithLogitsLossFlat)


def genre_targets(learn: Learner, tracks: pd.DataFrame) -> torch.Tensor:
    """The genres of some tracks as a learner is trained on them.

    Returns
    -------
    torch.Tensor [shape=(n,), dtype=int64]
        The number of each track's genre; or, where a song can have several,
        [shape=(n, n_genres), dtype=bool], whether the track has each genre.
    """
    vocab = learn.dls.vocab
    if is_multi_label(tracks):
        return torch.from_numpy(genre_matrix(genre_lists(tracks), list(vocab)))
    return torch.tensor(tracks["genre"].map(vocab.o2i).tolist())


def best_thresholds(true: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The threshold of each genre with the highest F1 on validation songs.

    F1 has no threshold that fits all genres: the best one is half of the F1 that it gives, so it is
    low for a rare genre (Lipton, Elkan and Naryanaswamy, "Optimal thresholding of classifiers to
    maximize F1 measure", 2014). A genre of fewer than `FEWEST_SONGS` songs gets the threshold that
    is best for all genres together.

    Parameters
    ----------
    true : np.ndarray [shape=(n, n_genres), dtype=bool]
    probabilities : np.ndarray [shape=(n, n_genres)]

    Returns
    -------
    np.ndarray [shape=(n_genres,)]

    Examples
    --------
    >>> p = np.array([[0.9], [0.8], [0.7], [0.6], [0.4], [0.2], [0.1]])
    >>> best_thresholds(p > 0.3, p).round(2)
    array([0.3])
    """
    common = _best_threshold(true.ravel(), probabilities.ravel())
    return np.array(
        [
            _best_threshold(*one) if one[0].sum() >= FEWEST_SONGS else common
            for one in zip(true.T, probabilities.T, strict=True)
        ]
    )


def _best_threshold(true, probabilities):
    """The middle of the gap between the ranked songs at which F1 is highest."""
    order = np.argsort(-probabilities, kind="stable")
    ranked = np.append(probabilities[order], 0)
    f1 = 2 * np.cumsum(true[order]) / (np.arange(1, len(true) + 1) + true.sum())
    f1[ranked[:-1] == ranked[1:]] = 0  # songs of the same probability are not separated
    best = f1.argmax()
    return (ranked[best] + ranked[best + 1]) / 2


def predicted_lists(learn: Learner, probabilities: torch.Tensor) -> list[list[str]]:
    """The genres of each song by the learner's thresholds, sorted.

    Parameters
    ----------
    probabilities : torch.Tensor [shape=(n, n_genres)]
    """
    genres, thresholds = list(learn.dls.vocab), thresholds_of(learn)
    rows = (dict(zip(genres, row, strict=True)) for row in probabilities.tolist())
    return [sorted(genres_above(row, thresholds)) for row in rows]


def thresholds_of(learn: Learner) -> dict[str, float]:
    """The threshold of each genre: those of the training, or the usual one where it chose none."""
    run = getattr(learn, "training_run", None)  # a learner made elsewhere has none
    return (run and run.thresholds) or dict.fromkeys(learn.dls.vocab, USUAL_THRESHOLD)
