"""How long does the attribution map of a clip take, and how much do its few steps change it?

python benchmarks/explaining.py MODEL    (a folder that was exported, such as models/resnet34)
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from bench import clips, keep, median, plot_bars, take_turns
from PIL import Image

from melgenre.confusion.attribution import STEPS, attribution_maps, image_batch, smooth_maps
from melgenre.features.images import load_center
from melgenre.features.melspectrogram import melspectrogram_image
from melgenre.training.exported import load_exported

REFERENCE = 64  # steps


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    learn, _ = load_exported(options.model)
    paths, collection = clips(70)
    paths = paths[:: max(1, len(paths) // options.clips)][: options.clips]  # of all genres
    with tempfile.TemporaryDirectory() as folder:
        images = []
        for number, path in enumerate(paths):
            images.append(Path(folder, f"{number}.png"))
            Image.fromarray(melspectrogram_image(load_center(path))).save(images[-1])
        seconds = take_turns(ways(learn, images[0]), rounds=options.rounds)
        agreements = [agreement(learn, image) for image in images]
    rows = [{"way": way, "seconds": round(median(turns), 2)} for way, turns in seconds.items()]
    correlation, error = zip(*agreements, strict=True)
    name = "explaining" if options.model.name == "resnet34" else f"explaining_{options.model.name}"
    keep(
        name, rows, model=options.model.name, collection=collection, clips=len(images),
        steps=STEPS, reference_steps=REFERENCE,
        correlation={"median": round(median(correlation), 3), "lowest": round(min(correlation), 3)},
        completeness_error={"median": round(median(error), 3), "largest": round(max(error), 3)},
    )  # fmt: skip
    print(f"correlation: {median(correlation):.3f}, lowest {min(correlation):.3f}")
    print(f"error of the sum: {median(error):.3f} of the logits' change, largest {max(error):.3f}")
    plot_bars(name, rows, "seconds", "seconds per clip, two genres")


def ways(learn, image):
    """A function per way; each explains two genres of one clip."""
    genres = list(learn.dls.vocab)[:2]
    found = {f"melgenre, {STEPS} steps": lambda: attribution_maps(learn, image, genres)}
    try:
        from captum.attr import IntegratedGradients

        x = image_batch(learn, image)
        silence = image_batch(learn, np.zeros((*x.shape[-2:], 3), dtype=np.uint8))

        def by_captum():
            IntegratedGradients(learn.model.eval()).attribute(
                x.expand(2, -1, -1, -1), baselines=silence, target=[0, 1], n_steps=8,
                internal_batch_size=4,
            )  # fmt: skip

        found["Captum, 8 steps"] = by_captum
    except ImportError as error:
        print(f"Captum is left out: {error}")
    return found


def agreement(learn, image):
    """Compare few steps with many, for the two most probable genres of a clip.

    Returns
    -------
    correlation : float
        Of the smoothed maps that the confusion browser shows.
    error : float
        Root mean square of what the sums of the maps miss of the change of the logits, as a share
        of the root mean square of that change.
    """
    x = image_batch(learn, image)
    silence = image_batch(learn, np.zeros((*x.shape[-2:], 3), dtype=np.uint8))
    with torch.no_grad():
        logits, baseline = learn.model.eval()(torch.cat([x, silence]))
    targets = logits.topk(2).indices
    change = (logits - baseline)[targets].numpy()
    genres = [learn.dls.vocab[target] for target in targets]
    few, many = (attribution_maps(learn, image, genres, steps=n) for n in (STEPS, REFERENCE))
    shown = [smooth_maps(maps).ravel() for maps in (few, many)]
    missing = few.sum(axis=(1, 2)) - change
    error = np.sqrt(np.mean(missing**2) / np.mean(change**2))
    return float(np.corrcoef(*shown)[0, 1]), float(error)


if __name__ == "__main__":
    main()
