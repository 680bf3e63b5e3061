"""Every model against every protocol: what `make results` runs and notebook 08 shows."""

import itertools
import tempfile
import time

import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from .data.splits import PROTOCOLS, SplitError, held_out, iter_folds
from .evaluation.metrics import evaluate
from .evaluation.provenance import package_versions
from .evaluation.results import ResultsError, load_predictions, load_results
from .training.baselines import LogisticRegression, NeuralNetwork
from .training.cached_features import extract_features, features_cache
from .training.export import export_learner
from .training.learner import (
    describe_training,
    discard_checkpoint,
    fit,
    genre_learner,
    image_dataloaders,
    predict_tracks,
)
from .training.transfer import transfer_learner

BASELINES = {
    "descriptors + logistic regression": lambda seed: LogisticRegression(seed=seed),
    "descriptors + neural network": lambda seed: NeuralNetwork(seed=seed),
    "descriptors + SVM": lambda seed: make_pipeline(StandardScaler(), SVC(random_state=seed)),
}
"""Models of the 28 descriptors: a seed -> something with scikit-learn's `fit` and `predict`."""


def apply_protocol(tracks, protocol, seed=0):
    """The tracks split by a protocol's name; the seed only changes those that are drawn."""
    drawn = {"seed": seed} if protocol in ("random", "random-10-fold", "artist-split") else {}
    return PROTOCOLS[protocol](tracks, **drawn)


def run_network(tracks, protocol, architecture, recipe, *, seed=0):
    """Train and judge a network by a protocol: once, or once for each fold.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `image` and `genre`.
    protocol : str
        A name in `melgenre.data.splits.PROTOCOLS`.
    architecture, recipe : str
        As for `melgenre.training.learner.genre_learner`.
    seed : int
        Of the first weights, of the order of the tracks, and of the split where it is drawn.

    Returns
    -------
    training : dict
        Of `melgenre.training.learner.describe_training`; `seconds` of all folds.
    result : dict
        Of `melgenre.evaluation.metrics.evaluate`.
    predictions : pd.DataFrame
        Of every track that was judged.
    """
    split = apply_protocol(tracks, protocol, seed)
    judged, seconds = [], 0
    for one in iter_folds(split):
        learn = _train(genre_learner(image_dataloaders(one), architecture, recipe, seed=seed))
        seconds += learn.seconds
        judged.append(predict_tracks(learn, held_out(one)))
        training = describe_training(learn, one)
        discard_checkpoint(learn)
    predictions = pd.concat(judged, ignore_index=True)
    result = evaluate(predictions, protocol, split=split)
    return {**training, "seconds": round(seconds, 1)}, result, predictions


def run_baseline(tracks, features, protocol, model, make, *, seed=0):
    """Train and judge a model of fixed features, such as the 28 descriptors, by a protocol.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `genre`.
    features : np.ndarray [shape=(n, d)]
        A row for each of the tracks.
    protocol : str
        A name in `melgenre.data.splits.PROTOCOLS`.
    model : str
        Its name in the results.
    make : callable
        A seed -> something with scikit-learn's `fit` and `predict`, as in `BASELINES`.
    seed : int
        As for `run_network`.

    Returns
    -------
    training : dict
    result : dict
    predictions : pd.DataFrame
        As for `run_network`; without probabilities where the model has none.
    """
    features = np.asarray(features)
    split = apply_protocol(tracks, protocol, seed)
    judged, started = [], time.perf_counter()
    for one in iter_folds(split.assign(row=range(len(split)))):
        learned, asked = one[one["split"] == "train"], held_out(one)
        machine = make(seed)
        machine.fit(features[learned["row"]], learned["genre"].to_numpy())
        X = features[asked.pop("row")]
        asked = asked.assign(predicted=machine.predict(X))
        if hasattr(machine, "predict_proba"):
            columns = [f"p_{genre}" for genre in machine.classes_]
            asked[columns] = machine.predict_proba(X)
        judged.append(asked)
    predictions = pd.concat(judged, ignore_index=True)
    training = {
        "model": model, "architecture": model, "weights": "none", "recipe": "fixed features",
        "seed": seed, "seconds": round(time.perf_counter() - started, 1),
        "collection": str(tracks["collection"].iloc[0]), "train_tracks": len(learned),
        "device": "cpu", "versions": package_versions(),
    }  # fmt: skip
    return training, evaluate(predictions, protocol, split=split), predictions


def run_svm(tracks, protocol, architecture, *, seed=0):
    """A support-vector machine on the textures that the recipe `texture` gives its head.

    Parameters
    ----------
    tracks, protocol, seed
        As for `run_network`.
    architecture : str
        As for `melgenre.training.learner.genre_learner`.

    Returns
    -------
    training, result, predictions
        As for `run_network`.
    """
    any_split = apply_protocol(tracks, "random")
    learn = genre_learner(image_dataloaders(any_split), architecture, "texture")
    features = extract_features(learn, tracks, features_cache())
    model = f"textures of {architecture} + SVM"

    def make(seed):
        # A quarter of scikit-learn's own gamma: so many features lie far apart.
        machine = SVC(C=10, gamma=0.25 / features.shape[1], random_state=seed)
        return make_pipeline(StandardScaler(), machine)

    training, result, predictions = run_baseline(tracks, features, protocol, model, make, seed=seed)
    return {**training, "weights": learn.weights}, result, predictions


def vote(folder, name, models, protocol, split, *, seed=0):
    """Several models asked together: the mean of the probabilities that they gave before.

    Parameters
    ----------
    folder : str or Path
        With the results of each model by this protocol and seed.
    name : str
        What the vote is called in the results.
    models : list of str
        Their names in the results.
    protocol : str
        A name in `melgenre.data.splits.PROTOCOLS`.
    split : pd.DataFrame
        The split they were judged by.
    seed : int

    Returns
    -------
    training, result, predictions
        As for `run_network`.

    Raises
    ------
    ResultsError
        If one of them has no result yet.
    """
    runs = load_results(folder).query("protocol == @protocol and seed == @seed")
    runs = runs[runs["model"].isin(models)]
    if len(runs) < len(models):
        missing = ", ".join(sorted(set(models) - set(runs["model"])))
        raise ResultsError(
            f"No vote without {missing}: not run by {protocol} with seed {seed} yet."
        )
    tables = [load_predictions(folder, runs.loc[[i]]).set_index("track_id") for i in runs.index]
    mean = sum(table.filter(like="p_") for table in tables) / len(tables)
    mean["predicted"] = mean.idxmax(axis=1).str.removeprefix("p_")
    predictions = split.merge(mean, left_on="track_id", right_index=True)
    training = {
        **runs.iloc[-1].filter(
            ["collection", "seed", "train_tracks", "device", "precision", "threads", "versions"]
        ).to_dict(),
        "model": name, "architecture": name, "recipe": "vote",
        "weights": "; ".join(runs["weights"].unique()),
        "seconds": round(float(runs["seconds"].sum()), 1),
    }  # fmt: skip
    return training, evaluate(predictions, protocol, split=split), predictions


def compare_initialisations(first, second, *, clips=(2, 5, 20), seeds=3):
    """Does it help to start from a model of ours, where there are few clips to learn from?

    A model learns all of `first`. Then a learner that starts from it, and one that starts from
    ImageNet, learn from a few clips of `second`'s artist fold 2, and are judged by its fold 3.

    Parameters
    ----------
    first, second : pd.DataFrame
        With `image`, `genre` and `artist_fold`; `first` has no artist of `second`'s folds 2, 3.
    clips : tuple of int
        How many of each genre are learned from; numbers that the collection is too small for are
        left out.
    seeds : int

    Returns
    -------
    pd.DataFrame
        Mean accuracy over the seeds: a row for each of `clips`, a column for each start.

    Raises
    ------
    SplitError
        If the collection is too small for any of `clips`.
    """
    watched_clips = 8
    fold = second.get("artist_fold", pd.Series(np.nan, index=second.index))
    pool, judged = second[fold == 2], second[fold == 3]
    most = _fewest(pool, set(second["genre"]))
    clips = [n for n in clips if n <= most]
    known = _fewest(first, set(first["genre"]))
    if not clips or not _fewest(judged, set(second["genre"])) or known <= watched_clips:
        raise SplitError(
            f"Too few tracks to compare starts: it takes more than {watched_clips} of each genre "
            "to train a model, and tracks of each genre in artist folds 2 and 3. GTZAN whole has "
            "them."
        )
    watched = first.groupby("genre").sample(watched_clips, random_state=0).index
    split = first.assign(split=np.where(first.index.isin(watched), "valid", "train"))
    learn = _train(genre_learner(image_dataloaders(split)))
    predictions = predict_tracks(learn, held_out(split))
    judged, pool = judged.assign(split="valid"), pool.assign(split="train")
    rows = []
    with tempfile.TemporaryDirectory() as model:
        export_learner(learn, model, describe_training(learn, split),
                       evaluate(predictions, "watched"), predictions)  # fmt: skip
        for n, seed in itertools.product(clips, range(seeds)):
            few = pool.groupby("genre").sample(n, random_state=seed)
            dls = image_dataloaders(pd.concat([few, judged], ignore_index=True))
            for start, learn in {
                "from ImageNet": genre_learner(dls, seed=seed),
                "from the model": transfer_learner(dls, model, seed=seed),
            }.items():
                predictions = predict_tracks(_train(learn), judged)
                rows.append((n, start, (predictions["predicted"] == judged["genre"]).mean()))
    table = pd.DataFrame(rows, columns=["clips a genre", "start", "accuracy"])
    return table.pivot_table(index="clips a genre", columns="start", values="accuracy")


def _fewest(tracks, genres):
    """How many tracks the genre has that has fewest."""
    return tracks["genre"].value_counts().reindex(sorted(genres), fill_value=0).min()


def _train(learn):
    with learn.no_logging(), learn.no_bar():
        fit(learn)
    return learn
