"""A linear head in closed form: scaling, principal components and a linear discriminant."""

import warnings

import numpy as np
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn

from ..data.splits import SplitError
from .block_discriminant import COMPONENTS, FEWEST, FOLDS, MOST_FEATURES, fit_blocks
from .calibration import fit_temperature
from .feature_store import BLOCK_BYTES, StoredFeatures


def fit_discriminant(
    head: nn.Sequential,
    features: torch.Tensor | StoredFeatures,
    genres: torch.Tensor,
    *,
    shrinkage: float,
    balanced: bool = False,
) -> None:
    """Fit a linear head by linear discriminant analysis with a shrunk covariance.

    There are more features than clips, so the features are standardised and projected to their
    principal components first. The three steps are linear: the statistics of the batch norm are the
    first, and the weights of the last layer are the product of the others. The method is that of
    Friedman, "Regularized discriminant analysis" (1989), and scikit-learn computes it. For features
    on disk, `melgenre.training.block_discriminant` computes the same.

    With almost as many components as clips a discriminant is overconfident, the more the fewer
    clips there are. So its logits are divided by the temperature that a cross-validation of the
    training clips gives.

    Parameters
    ----------
    head
        It ends with a batch norm and a linear layer, and is changed in place.
    features : torch.Tensor or StoredFeatures [shape=(n, d)]
        Of a frozen body, for the training clips.
    genres : torch.Tensor [shape=(n,) or (n, n_genres)]
        Numbers of the genres; or whether each clip has each genre, and then there is a discriminant
        of each genre against the rest. Each genre occurs.
    shrinkage
        Between 0, the covariance of the clips, and 1, the same variance for all components.
    balanced
        The same prior for all genres (of several per clip: for a genre and the rest), and so the
        same weight of their covariances. By default both follow the number of clips.

    Raises
    ------
    SplitError
        If there are no more clips than genres, or if all clips have a genre.
    RecipeError
        If clips of several genres on disk are to be balanced.
    """
    labels = genres.cpu().numpy().astype(int)
    _check_labels(labels)
    *first, norm, last = head.eval()
    if isinstance(features, StoredFeatures) or _by_blocks(features, labels, balanced):
        if isinstance(features, torch.Tensor):
            features = features.cpu().numpy()
        fitted = fit_blocks(nn.Sequential(*first), features, labels, shrinkage, balanced=balanced)
    else:
        with torch.no_grad():
            x = nn.Sequential(*first)(features).cpu().numpy().astype("float64")
        fitted = _fit(x, labels, shrinkage, balanced)
    with torch.no_grad():
        norm.weight.fill_(1)
        norm.bias.fill_(0)
        buffers = norm.running_mean, norm.running_var, last.weight, last.bias
        for ours, values in zip(buffers, fitted, strict=True):
            ours.copy_(torch.from_numpy(values))


def _by_blocks(features, labels, balanced):
    """Whether features in memory are fitted as those on disk, since `_fit` makes ten copies."""
    possible = features.shape[1] <= MOST_FEATURES and not (balanced and labels.ndim == 2)
    return possible and features.nbytes > BLOCK_BYTES


def _fit(x, labels, shrinkage, balanced):
    """The mean and variance of the batch norm, and the weights and biases of the linear layer."""
    scaler = StandardScaler().fit(x)
    pca = PCA(min(COMPONENTS, len(x) - 1, x.shape[1]), svd_solver="full")
    components = pca.fit_transform(scaler.transform(x))
    several = labels.ndim == 2
    n_classes = 2 if several else len(set(labels))
    priors = np.full(n_classes, 1 / n_classes) if balanced else None
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=priors)
    if several:
        lda = OneVsRestClassifier(lda)
    lda.fit(components, labels)
    temperature = _temperature(lda, components, labels)
    coefficients, intercept = _per_genre(lda)
    weights = coefficients @ pca.components_ / temperature
    bias = intercept / temperature - weights @ pca.mean_
    return scaler.mean_, scaler.scale_**2, weights, bias


def _check_labels(labels):
    """Raise `SplitError` for labels that a discriminant cannot separate."""
    n_genres = labels.shape[1] if labels.ndim == 2 else len(set(labels))
    if len(labels) <= n_genres:
        raise SplitError(
            f"A linear discriminant needs more than one clip of a genre; there are {len(labels)} "
            f"clips of {n_genres} genres. Add some, or choose the recipe 'texture'."
        )
    if labels.ndim == 2 and labels.all(axis=0).any():
        raise SplitError(
            "All training clips have one genre in common, and a linear discriminant needs clips "
            "without it. Remove that genre, or choose the recipe 'texture'."
        )


def _temperature(lda, components, labels):
    """The temperature of logits for clips that a discriminant was not fitted on."""
    if labels.ndim == 2:
        return _temperature_of_several(lda, components, labels)
    known = np.bincount(labels)[labels] >= FEWEST
    genres, labels, sizes = np.unique(labels[known], return_inverse=True, return_counts=True)
    if len(genres) < 2:  # too few clips to hold some out
        return 1.0
    folds = min(FOLDS, sizes.min())
    if lda.priors is not None:  # the same for each of the genres that take part
        lda = clone(lda).set_params(priors=np.full(len(genres), 1 / len(genres)))
    logits = cross_val_predict(lda, components[known], labels, cv=folds, method="decision_function")
    if logits.ndim == 1:  # of two genres scikit-learn gives the difference
        logits = np.stack([0 * logits, logits], axis=1)
    return fit_temperature(torch.from_numpy(logits), torch.from_numpy(labels))


def _temperature_of_several(lda, components, labels):
    """`_temperature` of clips of several genres."""
    folds = KFold(min(FOLDS, len(labels)), shuffle=True, random_state=0)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # rare genres in no fold
        logits = cross_val_predict(lda, components, labels, cv=folds, method="decision_function")
    return fit_temperature(torch.from_numpy(logits), torch.from_numpy(labels))


def _per_genre(lda):
    """The coefficients and intercepts of each genre."""
    if isinstance(lda, OneVsRestClassifier):
        fitted = lda.estimators_
        return (
            np.concatenate([one.coef_ for one in fitted]),
            np.concatenate([one.intercept_ for one in fitted]),
        )
    if len(lda.classes_) > 2:
        return lda.coef_, lda.intercept_
    # Of two genres scikit-learn gives the difference.
    zero = np.zeros_like(lda.coef_), np.zeros_like(lda.intercept_)
    return np.concatenate([zero[0], lda.coef_]), np.concatenate([zero[1], lda.intercept_])
