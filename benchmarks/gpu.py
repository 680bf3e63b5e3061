"""Times and accuracies of notebooks 04 and 05 on a GPU: `make gpu-check` runs it.

python benchmarks/gpu.py [--architectures resnet34 resnet50]
"""

import argparse

from bench import empty_features_cache, keep, tracks_with_images
from fastai.torch_core import default_device

from melgenre.data.protocols import protocols_for
from melgenre.experiments import train_and_evaluate

RECIPES = {
    "texture": "default recipe",
    "frozen-head": "ten frozen epochs",
    "fine-tune": "fine-tuning",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="+", default=["resnet34", "resnet50"])
    options = parser.parse_args()
    if default_device().type == "cpu":
        print("No GPU here: these are the times and accuracies of the CPU.")
    tracks = tracks_with_images()
    rows = [
        measure(tracks, protocol, architecture, recipe)
        for architecture in options.architectures
        for recipe in RECIPES
        for protocol in protocols_for(tracks)
    ]
    keep("gpu", rows, collection=str(tracks["collection"].iloc[0]))


def measure(tracks, protocol, architecture, recipe):
    """One training, with an empty cache of features."""
    with empty_features_cache():
        run = train_and_evaluate(tracks, protocol, architecture, recipe)
    low, high = run.result["interval"]
    return {
        "network": architecture, "recipe": RECIPES[recipe], "protocol": protocol,
        "seconds": run.seconds, "accuracy": run.result["accuracy"],
        "interval": f"{low:.3f} to {high:.3f}", "tracks": run.result["tracks"],
        "device": run.device, "precision": run.precision, "weights": run.weights,
    }  # fmt: skip


if __name__ == "__main__":
    main()
