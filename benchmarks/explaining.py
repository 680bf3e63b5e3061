"""Time of the attribution maps of a clip, and their deviation from maps of many steps.

python benchmarks/explaining.py MODEL    (an exported folder, such as models/resnet34)
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench import clips, keep, median, plot_bars, take_turns
from fastai.learner import Learner
from PIL import Image

from melgenre.confusion.attribution import STEPS, attribution_maps, smooth_maps
from melgenre.features.images import load_center
from melgenre.features.melspectrogram import melspectrogram_image
from melgenre.training.exported import load_exported
from melgenre.training.image_loader import image_batch

CLIPS, ROUNDS, REFERENCE_STEPS = 20, 5, 64


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    options = parser.parse_args()
    learn, _ = load_exported(options.model)
    paths, collection = clips(70)
    paths = paths[:: max(1, len(paths) // CLIPS)][:CLIPS]  # from all genres
    with tempfile.TemporaryDirectory() as folder:
        images = []
        for number, path in enumerate(paths):
            images.append(Path(folder, f"{number}.png"))
            Image.fromarray(melspectrogram_image(load_center(path))).save(images[-1])
        seconds = take_turns(ways(learn, images[0]), rounds=ROUNDS)
        agreements = [agreement(learn, image) for image in images]
    rows = [{"way": way, "seconds": round(median(turns), 2)} for way, turns in seconds.items()]
    correlation, error = zip(*agreements, strict=True)
    name = "explaining" if options.model.name == "resnet34" else f"explaining_{options.model.name}"
    keep(
        name, rows, model=options.model.name, collection=collection, clips=len(images),
        steps=STEPS, reference_steps=REFERENCE_STEPS,
        correlation={"median": round(median(correlation), 3), "lowest": round(min(correlation), 3)},
        completeness_error={"median": round(median(error), 3), "largest": round(max(error), 3)},
    )  # fmt: skip
    print(f"correlation: median {median(correlation):.3f}, lowest {min(correlation):.3f}")
    print(f"completeness error: median {median(error):.3f}, largest {max(error):.3f}")
    plot_bars(name, rows, "seconds", "seconds per clip, two genres")


def ways(learn: Learner, image: Path) -> dict[str, Callable[[], object]]:
    """One function per library; each computes the maps of two genres of one clip."""
    genres = list(learn.dls.vocab)[:2]
    functions = {f"melgenre, {STEPS} steps": lambda: attribution_maps(learn, image, genres)}
    try:
        from captum.attr import IntegratedGradients

        x = image_batch(learn, image)
        silence = image_batch(learn, np.zeros(x.shape[-2:], dtype=np.uint8))

        def by_captum():
            IntegratedGradients(learn.model.eval()).attribute(
                x.expand(2, -1, -1, -1), baselines=silence, target=[0, 1], n_steps=8,
                internal_batch_size=4,
            )  # fmt: skip

        functions["Captum, 8 steps"] = by_captum
    except ImportError as error:
        print(f"Captum is not measured: {error}")
    return functions


def agreement(learn: Learner, image: Path) -> tuple[float, float]:
    """Compare the maps of few steps with those of many, for the two most probable genres of a clip.

    Returns
    -------
    correlation : float
        Between the smoothed maps that the confusion browser shows.
    error : float
        Completeness error: the root mean square of (sum of a map - change of its logit), divided by
        the root mean square of the changes.
    """
    x = image_batch(learn, image)
    silence = image_batch(learn, np.zeros(x.shape[-2:], dtype=np.uint8))
    with torch.no_grad():
        logits, baseline = learn.model.eval()(torch.cat([x, silence]))
    targets = logits.topk(2).indices
    change = (logits - baseline)[targets].numpy()
    genres = [learn.dls.vocab[target] for target in targets]
    few, many = (attribution_maps(learn, image, genres, steps=n) for n in (STEPS, REFERENCE_STEPS))
    smoothed = [smooth_maps(maps).ravel() for maps in (few, many)]
    missing = few.sum(axis=(1, 2)) - change
    error = np.sqrt(np.mean(missing**2) / np.mean(change**2))
    return float(np.corrcoef(*smoothed)[0, 1]), float(error)


if __name__ == "__main__":
    main()
