"""The linear discriminant of features on disk, block by block, from their moments.

The scaling, the principal components and the discriminant depend on the features only by counts,
means and covariances, which are sums over the clips. So two passes over the features are enough,
with a few matrices [shape=(d, d)] in memory:

* the first gives the mean and the covariance of the features. The eigenvectors of the covariance of
  the standardised features are the principal components;
* the second gives, for each fold, the number and the sum of each genre's components, and the sum of
  their outer products.

The covariance within the genres is the mean outer product minus that of the genres' means. The sums
of all folds but one give the discriminant that predicts this fold. Where clips have several genres,
the sums of a genre and of all clips give those of the rest, and so the discriminant of each genre
against the rest.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

import numpy as np
import torch
from scipy.linalg import eigh, lstsq
from sklearn.model_selection import KFold, StratifiedKFold
from torch import nn

from ..errors import MelgenreError
from .calibration import fit_temperature
from .feature_store import BLOCK_BYTES, StoredFeatures
from .recipes import RecipeError

COMPONENTS = 400
"""Principal components that the discriminant uses; fewer where there are fewer clips."""

FOLDS = 5
"""Of the cross-validation that sets the scale of the logits."""

FEWEST = 3
"""Clips of a genre that takes part in that cross-validation."""

MOST_FEATURES = 8192
"""Of a clip: their covariance takes 540 MB."""

NOT_HELD_OUT = -1
"""In place of the number of a fold."""

CLIPS_FOR_TEMPERATURE = 50_000
"""Held-out clips that the temperature is fitted on: it is one number, and more hardly change it."""

Blocks = Callable[[np.ndarray], Iterator[tuple[np.ndarray, np.ndarray]]]
"""A function of rows: yields some of the rows at a time, with their features in float64."""


class Moments(NamedTuple):
    """Weighted sums over clips, which can be added and subtracted."""

    counts: np.ndarray
    """Weight of the clips of each genre [shape=(n_genres,)]."""

    sums: np.ndarray
    """Sum of the clips of each genre [shape=(n_genres, d)]."""

    products: np.ndarray
    """Sum of the outer products of all clips [shape=(d, d)]."""

    @classmethod
    def of(cls, x: np.ndarray, genres: np.ndarray, weights: np.ndarray) -> Self:
        """The moments of clips x [shape=(n, d)], by their genres and the weights of these."""
        one_hot = np.diag(weights)[genres]
        return cls(one_hot.sum(axis=0), one_hot.T @ x, x.T @ (x * weights[genres][:, None]))

    def plus(self, other: Self, sign: int = 1) -> Self:
        """The sums of both; with the sign -1, without the other's."""
        return type(self)(*(ours + sign * theirs for ours, theirs in zip(self, other, strict=True)))

    def discriminant(self, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients [shape=(n_genres, d)] and intercepts [shape=(n_genres,)]."""
        n, d = self.counts.sum(), self.sums.shape[1]
        means = self.sums / self.counts[:, None]
        within = (self.products - means.T @ self.sums) / n
        shrunk = (1 - shrinkage) * within + shrinkage * np.trace(within) / d * np.eye(d)
        coefficients = lstsq(shrunk, means.T)[0].T
        intercepts = np.log(self.counts / n) - (means * coefficients).sum(axis=1) / 2
        return coefficients, intercepts


class MomentsOfSeveral(Moments):
    """The same where clips have several genres; the last count and sum are those of all clips."""

    @classmethod
    def of(cls, x: np.ndarray, genres: np.ndarray, weights: None = None) -> Self:
        """The moments of clips x, by whether each has each genre [shape=(n, n_genres)]."""
        members = np.column_stack([genres, np.ones(len(genres))])
        return cls(members.sum(axis=0), members.T @ x, x.T @ x)

    def discriminant(self, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients [shape=(n_genres, d)] and intercepts [shape=(n_genres,)] of one-vs-rest."""
        n, total = self.counts[-1], self.sums[-1]
        # As in scikit-learn, a genre of no clip or of all clips has the logit 0 or 1.
        coefficients, intercepts = np.zeros_like(self.sums[:-1]), self.counts[:-1] / n
        for genre in np.flatnonzero((intercepts > 0) & (intercepts < 1)):
            count, own = self.counts[genre], self.sums[genre]
            pair = Moments(
                np.array([n - count, count]), np.stack([total - own, own]), self.products
            )
            (rest, ours), (lower, upper) = pair.discriminant(shrinkage)
            coefficients[genre], intercepts[genre] = ours - rest, upper - lower
        return coefficients, intercepts


def fit_blocks(
    first: nn.Sequential,
    features: StoredFeatures,
    labels: np.ndarray,
    shrinkage: float,
    *,
    balanced: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fit the discriminant of `fit_discriminant` to features on disk.

    Parameters
    ----------
    first
        The layers before the batch norm.
    features : StoredFeatures [shape=(n, d)]
    labels : np.ndarray [shape=(n,) or (n, n_genres)]
        Numbers of the genres from 0; or whether each clip has each genre. Each occurs.
    shrinkage
        Of the covariance, between 0 and 1.
    balanced
        The same weight for each genre.

    Returns
    -------
    mean, variance : np.ndarray [shape=(d,)]
        For the batch norm.
    weights, bias : np.ndarray [shape=(n_genres, d), (n_genres,)]
        For the linear layer.

    Raises
    ------
    MelgenreError
        If a clip has more than `MOST_FEATURES` features.
    RecipeError
        If clips of several genres are to be balanced: it takes the covariance of each genre.
    """
    if features.shape[1] > MOST_FEATURES:
        raise MelgenreError(
            f"A discriminant of {len(labels):,} clips with {features.shape[1]:,} features each "
            f"does not fit in memory; {MOST_FEATURES:,} do. Choose the recipe 'texture', or one "
            "smaller architecture."
        )
    several = labels.ndim == 2
    if several and balanced:
        raise RecipeError(
            f"The features of {len(labels):,} clips do not fit in memory, and on disk a balanced "
            "discriminant needs one genre per clip. Choose the recipe 'discriminant' or "
            "'balanced-texture'."
        )
    kind, every = MomentsOfSeveral if several else Moments, np.arange(len(labels))
    weights_of_genres = None if several else _weights_of_genres(labels, balanced)

    def blocks(rows):
        count = -(-len(rows) * features.nbytes // (len(features) * BLOCK_BYTES))
        for some in np.array_split(rows, count):
            with torch.no_grad():
                yield some, first(torch.from_numpy(features[some])).numpy().astype("float64")

    mean, scale, components = _principal_components(blocks, every)
    projection = (components / scale).T

    def project(rows):
        return ((some, (x - mean) @ projection) for some, x in blocks(rows))

    folds = _folds(labels)
    of_folds = {fold: kind(0, 0, 0) for fold in np.unique(folds)}
    for rows, z in project(every):
        for fold, moments in of_folds.items():
            held = folds[rows] == fold
            some = kind.of(z[held], labels[rows][held], weights_of_genres)
            of_folds[fold] = moments.plus(some)
    total = kind(*map(sum, zip(*of_folds.values(), strict=True)))
    coefficients, intercepts = total.discriminant(shrinkage)
    temperature = 1.0
    if folds.max() > NOT_HELD_OUT:
        others = {
            fold: total.plus(moments, -1).discriminant(shrinkage)
            for fold, moments in of_folds.items()
            if fold != NOT_HELD_OUT
        }
        tested = np.flatnonzero(folds != NOT_HELD_OUT)
        tested = tested[:: -(-len(tested) // CLIPS_FOR_TEMPERATURE)]
        logits = np.concatenate([_held_out(z, folds[rows], others) for rows, z in project(tested)])
        temperature = fit_temperature(torch.from_numpy(logits), torch.from_numpy(labels[tested]))
    weights = coefficients @ components / temperature
    return mean, scale**2, weights, intercepts / temperature


def _weights_of_genres(labels, balanced):
    """The weight of a clip of each genre."""
    sizes = np.bincount(labels)
    return len(labels) / len(sizes) / sizes if balanced else np.ones(len(sizes))


def _principal_components(blocks: Blocks, every: np.ndarray):
    """Mean and scale of the features, and the principal components of the standardised ones."""
    shift, total, products = None, 0, 0
    for _, x in blocks(every):
        if shift is None:  # near the mean, so that few digits cancel
            shift = x.mean(axis=0)
        x -= shift
        total += x.sum(axis=0)
        products += x.T @ x
    n, d = len(every), len(shift)
    covariance = products / n - np.outer(total / n, total / n)
    mean, variance = shift + total / n, covariance.diagonal()
    # As scikit-learn's scaler: features that are constant up to rounding are not scaled.
    rounding = np.finfo(np.float64).eps * n
    constant = variance <= rounding * variance + (rounding * mean) ** 2
    scale = np.where(constant, 1.0, np.sqrt(variance.clip(min=0)))
    covariance /= np.outer(scale, scale)
    count = min(COMPONENTS, n - 1, d)
    _, vectors = eigh(covariance, subset_by_index=[d - count, d - 1], overwrite_a=True)
    return mean, scale, vectors.T


def _folds(labels):
    """The fold of each clip, as in scikit-learn's `cross_val_predict`.

    Clips of genres that have too few are in none, so that each discriminant knows each genre.
    """
    folds = np.full(len(labels), NOT_HELD_OUT)
    if labels.ndim == 2:
        splits = KFold(min(FOLDS, len(labels)), shuffle=True, random_state=0)
        for fold, (_, held) in enumerate(splits.split(labels)):
            folds[held] = fold
        return folds
    sizes = np.bincount(labels)
    many = np.flatnonzero(sizes[labels] >= FEWEST)
    if (sizes >= FEWEST).sum() > 1:
        splits = StratifiedKFold(min(FOLDS, sizes[sizes >= FEWEST].min()))
        for fold, (_, held) in enumerate(splits.split(many, labels[many])):
            folds[many[held]] = fold
    return folds


def _held_out(z, folds, others):
    """Logits [shape=(n, n_genres)] by the discriminants that were fitted without each clip."""
    logits = np.empty((len(z), len(others[0][1])))
    for fold, (coefficients, intercepts) in others.items():
        logits[folds == fold] = z[folds == fold] @ coefficients.T + intercepts
    return logits
