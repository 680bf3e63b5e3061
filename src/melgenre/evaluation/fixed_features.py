"""Features that are not trained here, evaluated by the same heads under every protocol.

Whatever describes a recording by numbers (descriptors, the embedding of a network for audio) can be
compared with the models of this project: by the same splits, intervals and paired tests.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from ..data.genres import is_multi_label
from ..data.protocols import PROTOCOLS, apply_protocol
from ..data.splits import SplitError, held_out, iter_folds
from ..data.table import probability_columns
from ..errors import MelgenreError, MelgenreWarning
from ..text import names_below, short
from .bootstrap import artist_groups, bootstrap_ci
from .metrics import (
    EvaluationError,
    evaluate,
    paired_permutation_test,
)
from .results import load_predictions, load_results, record_run
from .run import Run

INNER_FOLDS = 3
"""Of the training part, to choose the regularisation where the split has no `valid`."""


class FeatureError(MelgenreError, ValueError):
    """Features that do not describe the tracks; the message says why."""


@dataclass(frozen=True)
class Head:
    """A classifier of features.

    Attributes
    ----------
    make
        C -> an estimator with scikit-learn's `fit` and `predict`. A small C is a strong
        regularisation.
    grid
        The values of C to choose from, the smallest first.
    """

    make: Callable[[float], Any]
    grid: tuple[float, ...]


HEADS = {
    "linear probe": Head(
        lambda C: make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=300)),
        (0.0003, 0.003, 0.03, 0.3),
    ),
    "SVM": Head(lambda C: make_pipeline(StandardScaler(), SVC(C=C)), (0.1, 1.0, 10.0, 100.0)),
}
"""Each head by its name: a logistic regression, and a support vector machine."""


def evaluate_features(
    name: str,
    features: ArrayLike | Callable[[str], ArrayLike],
    tracks: pd.DataFrame,
    *,
    head: str = "linear probe",
    seeds: int = 1,
    folder: str | Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Evaluate features of recordings under every protocol that the collection allows.

    A head is trained on the features of the training tracks. Its regularisation is chosen on
    `valid` where the split has it, else by cross-validation of the training part, with the tracks
    of an artist in one fold; never on `test`. The default head is the usual one to compare
    embeddings: a linear model has one setting, does not depend on a seed, and shows what the
    features themselves separate (Alain and Bengio, "Understanding intermediate layers using linear
    classifier probes", 2016).

    The features must not have been trained on the genres of these tracks: the accuracy of such
    features is meaningless, also under a protocol that separates artists.

    Parameters
    ----------
    name
        Of the features in the results.
    features : array_like [shape=(n, d)], or callable
        One row per track; or a function of a recording's path that returns d numbers, such as the
        `embed` of a `GenreClassifier`.
    tracks
        With `track_id`, `genre` and `collection`, and `path` for a function.
    head
        A name in `HEADS`.
    seeds
        Number of seeds of the splits that are drawn at random.
    folder
        Where `record_run` records the runs, for `results_table` and `compare_models`. Then the
        result also has the paired test against the best other model of the folder.
    progress
        Show a progress bar while a function is computed.

    Returns
    -------
    pd.DataFrame
        One row per protocol: `accuracy` (mean over the seeds) with `low` and `high` (95 %
        interval), `tracks`, `leaks` of the split. With a folder that has another model with the
        same test tracks: `best other`, the `difference` to it, and `p_value` of
        `paired_permutation_test`.

    Raises
    ------
    FeatureError
        If the features are not one row of finite numbers per track, or the function fails.
    SplitError
        If no protocol can split the tracks.
    """
    if head not in HEADS:
        raise FeatureError(f"No head {head!r}. Choose one of {', '.join(HEADS)}.")
    tracks = tracks.reset_index(drop=True)
    X = _as_rows(name, features, tracks, progress)
    model, rows = f"{name} + {head}", {}
    # The products are small: several threads would mostly wait for each other.
    with (
        threadpool_limits(1),
        warnings.catch_warnings(action="ignore", category=MelgenreWarning),  # leaks are returned
    ):
        for protocol in _possible_protocols(tracks):
            runs = [
                run_fixed_features(
                    tracks, X, protocol, model, lambda X, one: _fit(HEADS[head], X, one), seed=seed
                )
                for seed in range(seeds)
            ]
            for run in runs if folder is not None else ():
                record_run(folder, run)
            rows[protocol] = _summary(runs)
            if folder is not None:
                rows[protocol] |= _compared(folder, runs)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("protocol")


def run_fixed_features(
    tracks: pd.DataFrame,
    features: np.ndarray,
    protocol: str,
    model: str,
    fit: Callable[[np.ndarray, pd.DataFrame], Any],
    *,
    seed: int = 0,
) -> Run:
    """Train and evaluate a model of features under one protocol.

    Parameters
    ----------
    tracks
        With `genre` and `collection`.
    features : np.ndarray [shape=(n, d)]
        One row per track.
    protocol
        A name in `melgenre.data.protocols.PROTOCOLS`.
    model
        Its name in the results.
    fit
        Features and their tracks with `split` (the rows of `train` and `valid`) -> an estimator
        with scikit-learn's `predict`, trained on `train`.
    seed
        Of the split, where it is drawn.

    Returns
    -------
    Run
        Its predictions have no probabilities where the estimator has no `predict_proba`.

    Raises
    ------
    EvaluationError
        If tracks have several genres.
    """
    features = np.asarray(features)
    if is_multi_label(tracks):
        raise EvaluationError(
            "Fixed features are evaluated on collections of one genre per track, and these tracks "
            "have lists of genres. train_and_evaluate trains a network on them."
        )
    split = apply_protocol(tracks, protocol, seed)
    predictions, started = [], time.perf_counter()
    for one in iter_folds(split.assign(row=range(len(split)))):
        others = one[one["split"].isin(["train", "valid"])]
        estimator = fit(features[others["row"]], others.drop(columns="row"))
        test = held_out(one)
        X = features[test.pop("row")]
        test = test.assign(predicted=estimator.predict(X))
        if hasattr(estimator, "predict_proba"):
            test[probability_columns(estimator.classes_)] = estimator.predict_proba(X)
        predictions.append(test)
    predictions = pd.concat(predictions, ignore_index=True)
    return Run(
        model=model,
        architecture=model,
        recipe="fixed features",
        weights="none",
        seed=seed,
        collection=str(tracks["collection"].iloc[0]),
        train_tracks=int((one["split"] == "train").sum()),
        seconds=round(time.perf_counter() - started, 1),
        result=evaluate(predictions, protocol, split=split),
        predictions=predictions,
    )


def _as_rows(name, features, tracks, progress):
    """The features as an array [shape=(n, d)] of finite numbers."""
    if callable(features):
        features = _compute(name, features, tracks, progress)
    try:
        X = np.asarray(features, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise FeatureError(
            f"The features {name!r} are not an array of numbers with one row per track "
            f"({short(error)})."
        ) from error
    if X.ndim == 0 or len(X) != len(tracks):
        raise FeatureError(
            f"The features {name!r} have {len(X) if X.ndim else 'no'} rows, and there are "
            f"{len(tracks)} tracks. Give one row per track, in the order of the table."
        )
    X = X.reshape(len(X), -1)
    bad = ~np.isfinite(X).all(axis=1)
    if bad.any():
        raise FeatureError(
            f"The features {name!r} of {bad.sum()} tracks, such as "
            f"{tracks.loc[bad, 'track_id'].iloc[0]}, are missing or infinite. Repair them, or "
            "leave these tracks out."
        )
    return X


def _compute(name, function, tracks, progress):
    """The features of each track by a function of its path."""
    if "path" not in tracks or tracks["path"].isna().any():
        raise FeatureError(
            f"The features {name!r} are a function of a recording, and some tracks have no sound. "
            "Leave them out: tracks.dropna(subset='path'), or give an array."
        )
    rows = []
    for path in tqdm(tracks["path"], desc=name, unit=" clips", disable=not progress):
        try:
            rows.append(np.asarray(function(path), dtype=np.float64).ravel())
        except Exception as error:  # of a function that is not ours
            (file,) = names_below([path])
            raise FeatureError(
                f"The features {name!r} of {file} cannot be computed ({type(error).__name__}: "
                f"{short(error)}). Repair the function, or leave this track out."
            ) from error
        if len(rows[-1]) != len(rows[0]):
            (file,) = names_below([path])
            raise FeatureError(
                f"The features {name!r} have {len(rows[0])} numbers for the first track and "
                f"{len(rows[-1])} for {file}. Return the same number for all: for example, means "
                "over time."
            )
    return np.stack(rows)


def _possible_protocols(tracks):
    """Names of the protocols that can split the tracks; raises the last reason if there is none."""
    possible = []
    for name in PROTOCOLS:
        try:
            apply_protocol(tracks, name)
            possible.append(name)
        except SplitError as error:
            reason = error
    if not possible:
        raise reason
    return possible


def _fit(head, X, tracks):
    """A head trained on the rows of `train`, with the best C."""
    genres, train = tracks["genre"].to_numpy(), (tracks["split"] == "train").to_numpy()
    scores = dict.fromkeys(head.grid, 0)
    for fit_rows, check_rows in _inner_folds(tracks):
        for C in head.grid:
            estimator = head.make(C).fit(X[fit_rows], genres[fit_rows])
            scores[C] += (estimator.predict(X[check_rows]) == genres[check_rows]).sum()
    best = max(scores, key=scores.get)  # of equal ones the first: the strongest regularisation
    return head.make(best).fit(X[train], genres[train])


def _inner_folds(tracks):
    """Rows to train on and rows to compare values of C on; none of a collection that is too small.

    The second are those of `valid`; without them, the training part is cut into folds.
    """
    train = np.flatnonzero(tracks["split"] == "train")
    valid = np.flatnonzero(tracks["split"] == "valid")
    if len(valid):
        return [(train, valid)]
    genres = tracks["genre"].to_numpy()[train]
    groups = artist_groups(tracks)[train]
    folds = min(INNER_FOLDS, len(set(groups)), pd.Series(genres).value_counts().max())
    if folds < 2:
        return []
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # genres of few tracks
        pairs = list(StratifiedGroupKFold(folds).split(train, genres, groups))
    return [(train[fit], train[check]) for fit, check in pairs if len(set(genres[fit])) > 1]


def _summary(runs):
    """One row of the table of `evaluate_features`, without the comparison."""
    predictions = pd.concat([run.predictions for run in runs])
    low, high = bootstrap_ci(predictions)
    leaks = runs[0].result["leaks"]
    return {
        "accuracy": round(np.mean([run.result["accuracy"] for run in runs]), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "tracks": runs[0].result["tracks"],
        "leaks": ", ".join(f"{kind}: {n}" for kind, n in leaks.items()) or "none",
    }


def _compared(folder, runs):
    """The paired test of some runs of a model against the best other model of a results folder."""
    ours = runs[0]
    results = load_results(folder)
    others = results[
        (results["protocol"] == ours.result["protocol"])
        & (results["collection"] == ours.collection)
        & (results["model"] != ours.model)
    ]
    if others.empty:
        return {}
    best = others.groupby("model")["accuracy"].mean().idxmax()
    theirs = load_predictions(folder, others[others["model"] == best])
    try:
        test = paired_permutation_test(pd.concat([run.predictions for run in runs]), theirs)
    except EvaluationError:  # other seeds, and so other test tracks
        return {}
    return {
        "best other": best,
        "difference": round(test["difference"], 4),
        "p_value": round(test["p_value"], 4),
    }
