"""The same training by one process and by two: accuracy, its interval, and seconds.

python benchmarks/processes.py [--architecture resnet18] [--recipe fine-tune@3] [--genres jazz rock]

Accelerate launches `melgenre train` as a user does: one process per GPU, or, without GPUs, one per
thread of a CPU.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from bench import keep
from PIL import Image

from melgenre.data.collection import load_collection
from melgenre.inference.classifier import GenreClassifier

LAUNCH = [
    sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
    "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
    "--main_process_port", "0",
]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--recipe", default="fine-tune@3")
    parser.add_argument("--genres", nargs="*", help="Some of those of GTZAN's images; else all.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        music = some_genres(Path(os.environ["MELGENRE_DATA"]), options.genres, Path(scratch))
        rows, same = compare(music, options)
    keep("processes", rows, same_predictions=same, **vars(options))


def some_genres(music, genres, folder):
    """A folder with links to the images of some genres; the whole collection if there are none."""
    if not genres:
        return music
    (folder / "mels").mkdir()
    for name in ("tracks.csv", *(f"mels/{genre}" for genre in genres)):
        (folder / name).symlink_to(music / name)
    return folder


def compare(music, options):
    """A row for each number of processes, and the share of test tracks predicted alike."""
    tracks = load_collection(music)
    rows, predicted = [], []
    for processes, launcher in (1, [sys.executable]), (2, LAUNCH):
        with tempfile.TemporaryDirectory() as home:
            arguments = ["--architecture", options.architecture, "--recipe", options.recipe]
            printed = train([*launcher, "-m", "melgenre", "train", str(music), *arguments], home)
            row, genres = measured(Path(home), tracks)
        assert row["processes"] == processes
        rows.append({**row, "lines with the accuracy": printed.count("Accuracy: ")})
        predicted.append(genres)
    return rows, round(float(np.mean(predicted[0] == predicted[1])), 3)


def train(command, home):
    """Run a training in a project's folder of its own; returns what it printed."""
    model = str(Path(home, "models", "trained"))
    environment = {**os.environ, "MELGENRE_HOME": home, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*command, "--out", model, "--quiet"], env=environment, capture_output=True, text=True
    )
    if ran.returncode:
        sys.exit(ran.stdout + ran.stderr)
    return ran.stdout


def measured(home, tracks):
    """The row of a training, and the genres that its exported model predicts for the test set."""
    (model,) = (home / "models").iterdir()
    config = json.loads((model / "config.json").read_text())
    split = pd.read_csv(model / "split.csv").query("split == 'test'")
    test = split[["track_id"]].merge(tracks, on="track_id")
    classifier = GenreClassifier.load(model)
    images = [np.asarray(Image.open(image)) for image in test["image"]]
    probabilities = np.concatenate(
        [classifier.predict_images(images[i : i + 16])[0] for i in range(0, len(images), 16)]
    )
    genres = np.array(classifier.genres)[probabilities.argmax(axis=1)]
    result, training = config["result"], config["training"]
    row = {
        "processes": training["processes"],
        "accuracy": round(result["accuracy"], 4),
        "interval": [round(bound, 4) for bound in result["interval"]],
        "accuracy of the exported model": round(float(np.mean(genres == test["genre"])), 4),
        "test tracks": result["tracks"],
        "seconds": training["seconds"],
        "threads per process": training["threads"],
    }
    return row, genres


if __name__ == "__main__":
    main()
