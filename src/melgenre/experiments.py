"""Run models under protocols: what `make results` calls and notebook 09 shows."""

import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from fastai.vision.all import noop
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from .data.genres import is_multi_label
from .data.protocols import apply_protocol
from .data.splits import SplitError, held_out, iter_folds
from .evaluation.fixed_features import run_fixed_features
from .evaluation.metrics import evaluate
from .evaluation.run import Run
from .training.baselines import LogisticRegression, NeuralNetwork
from .training.cached_features import extract_features
from .training.dataloaders import image_dataloaders
from .training.export import export_learner
from .training.fit import discard_checkpoint, fit
from .training.learner import genre_learner, predict_tracks
from .training.transfer import transfer_learner

BASELINES = {
    "descriptors + logistic regression": lambda seed: LogisticRegression(seed=seed),
    "descriptors + neural network": lambda seed: NeuralNetwork(seed=seed),
    "descriptors + SVM": lambda seed: make_pipeline(StandardScaler(), SVC(random_state=seed)),
}
"""Models of the 28 descriptors: a seed -> an estimator with scikit-learn's `fit` and `predict`."""

MONITORED_CLIPS = 8
"""Clips per genre that `compare_initialisations` holds out of its first collection."""


def train_and_evaluate(
    tracks: pd.DataFrame,
    protocol: str,
    architecture: str = "resnet34",
    recipe: str = "texture",
    seed: int = 0,
    *,
    log: Callable[[Sequence], Any] | None = None,
) -> Run:
    """Split the tracks, train a network, predict the test tracks and evaluate the predictions.

    With folds, one network is trained per fold, and each track is predicted by the one that was
    not trained on it.

    Parameters
    ----------
    tracks
        With `image` and `genre`.
    protocol
        A name in `melgenre.data.protocols.PROTOCOLS`.
    architecture, recipe
        As for `melgenre.training.learner.genre_learner`.
    seed
        Of the initial weights, the order of the tracks, and the split where it is drawn.
    log
        Called after each epoch with its number, training loss, validation loss, accuracy and
        time, in place of fastai's table and progress bar.

    Returns
    -------
    Run
        With `result`, `predictions` and, unless there are folds, `learner`.
    """
    split = apply_protocol(tracks, protocol, seed)
    predictions, seconds = [], 0.0
    for one in iter_folds(split):
        learn = genre_learner(image_dataloaders(one), architecture, recipe, seed=seed)
        _fit_logged(learn, log)
        seconds += learn.training_run.seconds
        predictions.append(predict_tracks(learn, held_out(one)))
        if "fold" in split:
            discard_checkpoint(learn)
    predictions = pd.concat(predictions, ignore_index=True)
    return replace(
        learn.training_run,
        seconds=round(seconds, 1),
        result=evaluate(predictions, protocol, split=split),
        predictions=predictions,
        learner=learn if "split" in split else None,
    )


def run_baseline(
    tracks: pd.DataFrame,
    features: np.ndarray,
    protocol: str,
    model: str,
    make_estimator: Callable[[int], Any],
    *,
    seed: int = 0,
) -> Run:
    """Train and evaluate a model of fixed features, such as the 28 descriptors.

    Parameters
    ----------
    tracks
        With `genre`.
    features : np.ndarray [shape=(n, d)]
        One row per track.
    protocol
        As for `train_and_evaluate`.
    model
        Its name in the results.
    make_estimator
        A seed -> an estimator with scikit-learn's `fit` and `predict`, as in `BASELINES`.

    Returns
    -------
    Run
        Its predictions have no probabilities where the estimator has no `predict_proba`.
    """

    def fit(X, split):
        train = (split["split"] == "train").to_numpy()
        return make_estimator(seed).fit(X[train], split.loc[train, "genre"].to_numpy())

    return run_fixed_features(tracks, features, protocol, model, fit, seed=seed)


def run_svm(tracks: pd.DataFrame, protocol: str, architecture: str, *, seed: int = 0) -> Run:
    """Train and evaluate a support vector machine on the features of the recipe `texture`.

    Parameters
    ----------
    tracks, protocol, architecture
        As for `train_and_evaluate`.
    """
    any_split = tracks.assign(split=np.where(np.arange(len(tracks)) % 2, "train", "test"))
    learn = genre_learner(image_dataloaders(any_split), architecture, "texture")
    features = extract_features(learn, tracks)
    model = f"textures of {learn.training_run.architecture} + SVM"

    def make_estimator(seed):
        # Smaller than scikit-learn's gamma: distances grow with the number of features.
        svm = SVC(C=10, gamma=0.25 / features.shape[1], random_state=seed)
        return make_pipeline(StandardScaler(), svm)

    run = run_baseline(tracks, features, protocol, model, make_estimator, seed=seed)
    return replace(
        run, weights=learn.training_run.weights, mel_settings=learn.training_run.mel_settings
    )


def compare_initialisations(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    clips: Sequence[int] = (2, 5, 20),
    seeds: int = 3,
) -> pd.DataFrame:
    """Compare initialisation from ImageNet and from an exported model, on few clips.

    A model is trained on `first`. Then a learner that starts from it, and one that starts from
    ImageNet, are trained on a few clips of `second`'s artist fold 2, and tested on its fold 3.

    Parameters
    ----------
    first, second
        With `image`, `genre` and `artist_fold`; no artist of `first` is in folds 2 and 3 of
        `second`.
    clips
        Training clips per genre; numbers that the collection is too small for are left out.

    Returns
    -------
    pd.DataFrame
        Mean accuracy over the seeds: one row per number of clips, one column per initialisation.

    Raises
    ------
    SplitError
        If the collection is too small for any of `clips`, or tracks have several genres.
    """
    if is_multi_label(first) or is_multi_label(second):
        raise SplitError(
            "Initialisations are compared by accuracy, on one genre per track, and these tracks "
            "have lists of genres. train_and_evaluate trains a network on them."
        )
    fold = second.get("artist_fold", pd.Series(np.nan, index=second.index))
    pool, test = second[fold == 2].assign(split="train"), second[fold == 3].assign(split="test")
    clips = [n for n in clips if n <= _fewest(pool, second)]
    if not clips or not _fewest(test, second) or _fewest(first, first) <= MONITORED_CLIPS:
        raise SplitError(
            f"Too few tracks to compare initialisations: more than {MONITORED_CLIPS} per genre are "
            "needed to train a model, and tracks of each genre in artist folds 2 and 3. All of "
            "GTZAN has them."
        )
    rows = []
    with tempfile.TemporaryDirectory() as model:
        export_learner(_trained_on(first), model)
        for n, seed in itertools.product(clips, range(seeds)):
            few = pool.groupby("genre").sample(n, random_state=seed)
            dls = image_dataloaders(pd.concat([few, test], ignore_index=True))
            learners = {
                "from ImageNet": genre_learner(dls, seed=seed),
                "from the model": transfer_learner(dls, model, seed=seed),
            }
            for start, learn in learners.items():
                predictions = predict_tracks(_fitted(learn), test)
                rows.append((n, start, (predictions["predicted"] == test["genre"]).mean()))
    table = pd.DataFrame(rows, columns=["clips per genre", "start", "accuracy"])
    return table.pivot_table(index="clips per genre", columns="start", values="accuracy")


def _trained_on(tracks):
    """A run of the default recipe on all tracks but a few, which are held out."""
    held = tracks.groupby("genre").sample(MONITORED_CLIPS, random_state=0).index
    split = tracks.assign(split=np.where(tracks.index.isin(held), "test", "train"))
    learn = _fitted(genre_learner(image_dataloaders(split)))
    predictions = predict_tracks(learn, held_out(split))
    result = evaluate(predictions, f"{MONITORED_CLIPS} clips per genre held out")
    return replace(learn.training_run, learner=learn, result=result, predictions=predictions)


def _fewest(tracks, collection):
    """Number of tracks of the collection's genre that has fewest of them."""
    genres = sorted(set(collection["genre"]))
    return tracks["genre"].value_counts().reindex(genres, fill_value=0).min()


def _fit_logged(learn, log):
    """Train; with a function in place of fastai's table and progress bar if it is not None."""
    if log is None:
        fit(learn)
        return
    with learn.no_bar():
        learn.logger, before = log, learn.logger
        try:
            fit(learn)
        finally:
            learn.logger = before


def _fitted(learn):
    """The learner after silent training."""
    _fit_logged(learn, noop)
    return learn
