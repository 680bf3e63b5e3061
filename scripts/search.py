"""Try a recipe with other settings, on training and validation tracks alone.

python scripts/search.py resnet34 fine-tune --epochs 100 --augmentation time filter --folds 2

Every setting of a recipe is a flag. A line with the settings, the accuracy of an artist-filtered
cross-validation of the 639 fault-filtered training and validation tracks, the accuracy on the
validation tracks, seconds, seed and commit is added to results/search.jsonl. The test is not used.
"""

import argparse
import json
import time
import warnings
from dataclasses import asdict, fields, replace
from itertools import islice
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from melgenre.data.collection import load_collection
from melgenre.data.protocols import apply_protocol
from melgenre.data.splits import iter_folds
from melgenre.evaluation.provenance import git_commit
from melgenre.features.images import extract_melspectrograms, images_folder
from melgenre.notebook import show_warnings_as_sentences
from melgenre.training.augment import AUGMENTATIONS
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.fit import discard_checkpoint, fit
from melgenre.training.learner import genre_learner, predict_tracks
from melgenre.training.recipes import RECIPES

ROOT = Path(__file__).resolve().parent.parent
FOLDS = 5


def main():
    options = parse()
    show_warnings_as_sentences()
    warnings.filterwarnings("ignore", module=r"(torch|fastai)\.")
    recipe = chosen_recipe(options)
    RECIPES["searched"] = recipe
    tracks = load_collection()
    tracks = extract_melspectrograms(tracks, images_folder(tracks))
    split = apply_protocol(tracks, "fault-filtered")
    known = split[split["split"].isin(["train", "valid"])].reset_index(drop=True)
    started, row = time.perf_counter(), {}
    if options.folds:
        folds = islice(iter_folds(artist_folds(known)), options.folds)
        row |= named("cv", [train(fold, options) for fold in folds])
    if options.valid:
        row |= named("valid", [train(known, options)])
    row = {
        "architecture": options.architecture, "base": options.recipe, "seed": options.seed,
        "folds": options.folds, **row, "seconds": round(time.perf_counter() - started),
        "commit": git_commit(), "date": time.strftime("%Y-%m-%d"), "note": options.note,
        "recipe": asdict(recipe),
    }  # fmt: skip
    print(json.dumps(row))
    with (ROOT / "results" / "search.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("architecture")
    parser.add_argument("recipe", choices=list(RECIPES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folds", type=int, default=FOLDS, help=f"run the first of {FOLDS} folds")
    parser.add_argument("--no-valid", dest="valid", action="store_false")
    parser.add_argument("--note", default="")
    parser.add_argument("--augmentation", nargs="*", choices=list(AUGMENTATIONS))
    for one in fields(RECIPES["texture"]):
        if one.name not in ("augmentation", "built_in", "balanced"):
            kind = one.type if isinstance(one.type, type) else float  # some may be None
            parser.add_argument("--" + one.name.replace("_", "-"), type=kind)
    return parser.parse_args()


def chosen_recipe(options):
    """The recipe with the settings that are given."""
    names = {one.name for one in fields(RECIPES["texture"])}
    given = {k: v for k, v in vars(options).items() if k in names and v is not None}
    if "augmentation" in given:
        given["augmentation"] = tuple(given["augmentation"])
    return replace(RECIPES[options.recipe], **given)


def artist_folds(known):
    """The tracks with a `fold`, the same for every track of an artist."""
    artist = known["artist_id"].fillna(known["track_id"])
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    fold = np.zeros(len(known))
    for number, (_, rows) in enumerate(splitter.split(known, known["genre"], artist)):
        fold[rows] = number
    return known.drop(columns="split").assign(fold=fold)


def train(split, options):
    """Train once; returns which evaluated tracks are right, and the accuracy after each epoch."""
    dls = image_dataloaders(split)
    learn = genre_learner(dls, options.architecture, "searched", seed=options.seed)
    with learn.no_bar(), learn.no_logging():
        fit(learn)
    discard_checkpoint(learn)
    predictions = predict_tracks(learn, dls.valid_ds.items)
    right = (predictions["predicted"] == predictions["genre"]).to_numpy()
    curve = [per_cent(accuracy) for *_, accuracy in getattr(learn.recorder, "values", [])]
    print(f"{per_cent(right.mean())} after {curve}", flush=True)
    return right, curve


def named(name, trained):
    """Accuracy over the evaluated tracks of all trainings, their number, and the curves."""
    right = np.concatenate([one for one, _ in trained])
    curves = [curve for _, curve in trained]
    return {name: per_cent(right.mean()), f"{name}_tracks": len(right), f"{name}_curves": curves}


def per_cent(share):
    return round(100 * float(share), 1)


if __name__ == "__main__":
    main()
