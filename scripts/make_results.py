"""Every model against every protocol, three seeds each: what the README's table is made of.

python scripts/make_results.py [--seeds 3]    (needs all of GTZAN; what has been run is left out)
"""

import argparse
import warnings
from pathlib import Path

from melgenre.data.collection import describe_collection, load_collection
from melgenre.data.duplicates import find_duplicates
from melgenre.evaluation.metrics import format_score
from melgenre.evaluation.results import RESULTS, load_results, record_result
from melgenre.experiments import (
    BASELINES,
    apply_protocol,
    run_baseline,
    run_network,
    run_svm,
    vote,
)
from melgenre.features.descriptors import (
    DESCRIPTORS,
    compute_descriptors,
    find_descriptors,
    load_descriptors,
)
from melgenre.features.images import extract_melspectrograms
from melgenre.files import project_folder

# The folds at random last: they take longest and say least.
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
]
MACHINE = "resnet34"
VOTE = "ensemble of resnet34 and resnet50, texture"
VOTERS = ["resnet34, texture", "resnet50, texture"]
ROOT = Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module=r"(torch|fastai)\.")

    tracks = load_collection()
    print(describe_collection(tracks))
    file = find_descriptors(tracks)
    described = load_descriptors(file, tracks) if file else compute_descriptors(tracks)
    X = described[list(DESCRIPTORS)].to_numpy()
    images = project_folder() / "data" / "images" / tracks["collection"].iloc[0]
    tracks = find_duplicates(extract_melspectrograms(tracks, images))
    done = finished(options.results)

    def run(model, seed, function, *arguments):
        made = function(*arguments, seed=seed)
        record_result(options.results, *made)
        print(f"{model}, seed {seed}: {format_score(made[1])}", flush=True)

    for protocol in PROTOCOLS:
        for seed in range(options.seeds):
            split = apply_protocol(tracks, protocol, seed)
            for model, make in BASELINES.items():
                if (model, protocol, seed) not in done:
                    run(model, seed, run_baseline, described, X, protocol, model, make)
            model = f"textures of {MACHINE} + SVM"
            if (model, protocol, seed) not in done:
                run(model, seed, run_svm, tracks, protocol, MACHINE)
            for architecture, recipe in NETWORKS:
                model = f"{architecture}, {recipe}"
                if (model, protocol, seed) not in done:
                    run(model, seed, run_network, tracks, protocol, architecture, recipe)
            if (VOTE, protocol, seed) not in done:
                run(VOTE, seed, vote, options.results, VOTE, VOTERS, protocol, split)


def finished(folder):
    """Model, protocol and seed of each run that the results file has."""
    if not (folder / RESULTS).exists():
        return set()
    runs = load_results(folder)
    return set(zip(runs["model"], runs["protocol"], runs["seed"], strict=True))


if __name__ == "__main__":
    main()
