"""Times and accuracies of notebooks 04 and 05 on a GPU: `make gpu-check` runs it.

python benchmarks/gpu.py [--architectures resnet34 resnet50]    (GTZAN's images, or makes some)
"""

import argparse

from bench import keep, nothing_kept, tracks_with_images
from fastai.torch_core import default_device

from melgenre.data.splits import protocols_for
from melgenre.experiments import run_network

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
    """One training, nothing kept from before."""
    with nothing_kept():
        training, result, _ = run_network(tracks, protocol, architecture, recipe)
    low, high = result["interval"]
    return {
        "network": architecture, "recipe": RECIPES[recipe], "protocol": protocol,
        "seconds": training["seconds"], "accuracy": result["accuracy"],
        "interval": f"{low:.3f} to {high:.3f}", "tracks": result["tracks"],
        "device": training["device"], "precision": training["precision"],
        "weights": training["weights"],
    }  # fmt: skip


if __name__ == "__main__":
    main()
