"""Balanced recipes on genres of which some are rare: accuracy and macro F1 on validation clips.

python benchmarks/balancing.py [--seeds 4]

GTZAN's fault-filtered training clips, of which half of the genres are cut down to a share; another
half with each seed. The test clips are not used.
"""

import argparse

import numpy as np
import pandas as pd
from bench import keep, plot_bars, tracks_with_images
from fastai.vision.all import noop

from melgenre.data.gtzan_splits import fault_filtered_split
from melgenre.evaluation.metrics import macro_f1
from melgenre.networks import BUILT_IN
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.fit import fit
from melgenre.training.learner import genre_learner, predict_tracks

RECIPES = ["discriminant", "balanced-discriminant", "texture", "balanced-texture"]
SHARES = [0.1, 0.2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    split = fault_filtered_split(tracks_with_images())
    split = split[split["split"].isin(["train", "valid"])].reset_index(drop=True)
    measured = [
        {"recipe": recipe, "share": share, **measure(cut, rare, share, recipe, seed)}
        for share in SHARES
        for seed in range(options.seeds)
        for cut, rare in [cut_down(split, share, seed)]
        for recipe in RECIPES
    ]
    mean = pd.DataFrame(measured).groupby(["recipe", "share"], sort=False).mean().round(4)
    rows = [
        {"training": f"{recipe}, rare genres at {share:.0%}", **scores}
        for (recipe, share), scores in mean.to_dict("index").items()
    ]
    keep("balancing", rows, seeds=options.seeds)
    plot_bars("balancing", rows, "macro F1", "macro F1 on the validation clips")


def cut_down(split, share, seed):
    """The split with fewer training clips of half of the genres, and the set of these genres."""
    rng = np.random.default_rng(seed)
    genres = sorted(set(split["genre"]))
    rare = set(rng.permutation(genres)[: len(genres) // 2])
    train = split["split"] == "train"
    some = split[train & split["genre"].isin(rare)]
    dropped = some.groupby("genre").sample(frac=1 - share, random_state=seed).index
    return split.drop(dropped).reset_index(drop=True), rare


def measure(split, rare, share, recipe, seed):
    """Train by a recipe and predict the validation clips."""
    learn = genre_learner(image_dataloaders(split), BUILT_IN, recipe, seed=seed)
    learn.logger = noop
    with learn.no_bar():
        fit(learn)
    valid = split[split["split"] == "valid"].reset_index(drop=True)
    predictions = predict_tracks(learn, valid)
    right = predictions["genre"] == predictions["predicted"]
    # As if the rare genres were as rare among the validation clips as in the training.
    weight = predictions["genre"].isin(rare).map({True: share, False: 1.0})
    return {
        "accuracy": right.mean(),
        "macro F1": macro_f1(predictions),
        "accuracy where rare genres are rare": np.average(right, weights=weight),
    }


if __name__ == "__main__":
    main()
