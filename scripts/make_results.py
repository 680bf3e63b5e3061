"""Run every model under every protocol with three seeds: the results in the README.

python scripts/make_results.py    (needs all of GTZAN; skips finished runs)
python scripts/make_results.py --fine-tuned    (also the networks that are fine-tuned; on a GPU)
"""

import argparse
import warnings
from pathlib import Path

from fastai.vision.all import noop

from melgenre.data.collection import describe_collection, load_collection
from melgenre.data.duplicates import find_duplicates
from melgenre.evaluation.metrics import format_score
from melgenre.evaluation.results import RESULTS, load_results, record_run
from melgenre.experiments import (
    BASELINES,
    run_baseline,
    run_svm,
    train_and_evaluate,
)
from melgenre.features.descriptors import (
    DESCRIPTORS,
    compute_descriptors,
    find_descriptors,
    load_descriptors,
)
from melgenre.features.images import extract_melspectrograms, images_folder
from melgenre.networks import BUILT_IN
from melgenre.notebook import show_warnings_as_sentences

# The random folds are last: they take longest.
PROTOCOLS = [
    "fault-filtered",
    "fault-filtered-train+valid",
    "artist-3-fold",
    "random",
    "random-10-fold",
]
NETWORKS = [
    ("resnet34", "frozen-head"),
    ("resnet50", "frozen-head"),
    ("resnet34", "texture"),
    ("resnet50", "texture"),
    ("resnet34", "discriminant"),
    ("resnet50", "discriminant"),
    ("resnet34+resnet50", "discriminant"),
    (BUILT_IN, "texture"),
    (BUILT_IN, "discriminant"),
]
FINE_TUNED = [
    ("resnet34", "fine-tune"),
    ("resnet50", "fine-tune"),
    ("resnet34", "fine-tune-texture"),
    ("resnet50", "fine-tune-texture"),
]
"""Networks whose layers are all trained: days on two cores, some hours on a GPU."""
SVM_BACKBONE = "resnet34"
ROOT = Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=PROTOCOLS)
    parser.add_argument("--fine-tuned", action="store_true", help="also fine-tuned networks")
    parser.add_argument("--models", nargs="+", help="these alone, such as 'resnet34, fine-tune'")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    options = parser.parse_args()
    show_warnings_as_sentences()
    warnings.filterwarnings("ignore", module=r"(torch|fastai)\.")

    tracks = load_collection()
    print(describe_collection(tracks))
    file = find_descriptors(tracks)
    descriptors = load_descriptors(file, tracks) if file else compute_descriptors(tracks)
    X = descriptors[list(DESCRIPTORS)].to_numpy()
    tracks = find_duplicates(extract_melspectrograms(tracks, images_folder(tracks)))
    done = finished(options.results)

    def run(model, protocol, seed, function, *arguments, **keywords):
        wanted = options.models is None or model in options.models
        if wanted and (model, protocol, seed) not in done:
            finished_run = function(*arguments, seed=seed, **keywords)
            record_run(options.results, finished_run)
            print(f"{model}, seed {seed}: {format_score(finished_run.result)}", flush=True)

    networks = NETWORKS + FINE_TUNED * options.fine_tuned
    for protocol in options.protocols:
        for seed in range(options.seeds):
            for model, make_estimator in BASELINES.items():
                run(model, protocol, seed, run_baseline, descriptors, X, protocol, model,
                    make_estimator)  # fmt: skip
            model = f"textures of {SVM_BACKBONE} + SVM"
            run(model, protocol, seed, run_svm, tracks, protocol, SVM_BACKBONE)
            for architecture, recipe in networks:
                run(f"{architecture}, {recipe}", protocol, seed, train_and_evaluate, tracks,
                    protocol, architecture, recipe, log=noop)  # fmt: skip


def finished(folder):
    """Model, protocol and seed of each run in the results file."""
    if not (folder / RESULTS).exists():
        return set()
    runs = load_results(folder)
    return set(zip(runs["model"], runs["protocol"], runs["seed"], strict=True))


if __name__ == "__main__":
    main()
