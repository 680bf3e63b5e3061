"""Speed of `fit` compared with a plain PyTorch loop, and the time of a whole training.

python benchmarks/training.py [--architecture resnet34]
"""

import argparse
import shutil
import time

import torch
from bench import empty_features_cache, keep, median, plot_bars, take_turns, tracks_with_images
from fastai.vision.all import ImageDataLoaders, Resize, accuracy, vision_learner
from torch.nn.functional import cross_entropy

from melgenre.data.protocols import apply_protocol, strictest_protocol
from melgenre.experiments import train_and_evaluate
from melgenre.networks import get_architecture
from melgenre.training.cached_features import extract_features, feature_dataloaders
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.export import export_learner
from melgenre.training.fit import fit
from melgenre.training.learner import genre_learner
from melgenre.training.recipes import RECIPES, Recipe, get_recipe

PARTS = {"train": "train", "test": "valid"}  # by the names of `ImageDataLoaders.from_folder`


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="resnet34")
    options = parser.parse_args()
    tracks = tracks_with_images()
    protocol = strictest_protocol(tracks)
    split = apply_protocol(tracks, protocol)

    rows = [
        *loops("all layers", *all_layers(split, options.architecture)),
        *frozen_body(split, options.architecture),
        *loops("head alone", *head_alone(split, options.architecture)),
    ]
    collection = str(tracks["collection"].iloc[0])
    keep("training", rows, collection=collection)
    plot_bars("training", rows, "images per second", "images per second", log=True)
    times = whole(tracks, split, protocol, options.architecture)
    keep("training_whole", times, collection=collection)


def loops(what, learn, batches, test_batch):
    """Images per second of `fit`, and of a plain PyTorch loop over the same batches in memory."""
    recipe, device = get_recipe(learn.training_run.recipe), learn.dls.device.type
    epochs = recipe.epochs + recipe.freeze_epochs
    model = learn.model[1] if test_batch[0].ndim == 2 else learn.model

    def forward(x, y):
        with torch.autocast(device, enabled=device == "cuda"):
            return cross_entropy(model(x), y)

    def plain():
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, 1e-4, fused=True)
        scaler = torch.amp.GradScaler(enabled=device == "cuda")
        for _ in range(epochs):
            model.train()
            for x, y in batches:
                scaler.scale(forward(x, y)).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
            model.eval()
            with torch.no_grad():
                forward(*test_batch)
        if device == "cuda":
            torch.cuda.synchronize()

    def fastai():
        with learn.no_bar(), learn.no_logging():
            fit(learn)

    return table(what, fastai, plain, epochs * sum(len(y) for _, y in batches))


def table(what, fastai, plain, images):
    """Images per second of both loops, which alternate."""
    seconds = take_turns({"fastai": fastai, "plain PyTorch": plain}, rounds=3)
    share = median(seconds["plain PyTorch"]) / median(seconds["fastai"])
    return [
        {
            "loop": f"{what}, {name}",
            "images per second": round(images / median(turns), 1),
            "share of the plain loop": round(share if name == "fastai" else 1, 3),
        }
        for name, turns in seconds.items()
    ]


def frozen_body(split, architecture):
    """The first half of the default recipe: the features of each image by the frozen body."""
    learn = genre_learner(image_dataloaders(split), architecture)
    some, bs = (split, 32) if torch.cuda.is_available() else (split.head(128), 2)
    body = learn.model[0].to(memory_format=torch.channels_last)
    batches = [channels_last((x, x))[0] for (x,) in learn.dls.test_dl(some, bs=bs)]

    def fastai():
        with empty_features_cache():
            extract_features(learn, some)

    def plain():
        with torch.inference_mode():
            for x in batches:
                body(x).cpu()

    body.eval()
    return table("frozen body", fastai, plain, len(some))


def all_layers(split, architecture):
    """An untrained network, and its batches on the device; without a GPU, of few images."""
    on_gpu = torch.cuda.is_available()
    RECIPES["all layers"] = Recipe("whole", freeze_epochs=0, epochs=10 if on_gpu else 1)
    if not on_gpu:
        few = split[split["split"] == "train"].head(64)
        one = split[(split["split"] == "test") & split["genre"].isin(few["genre"])].head(4)
        split = split.loc[[*few.index, *one.index]]
    dls = image_dataloaders(split)
    learn = genre_learner(dls, architecture, "all layers", pretrained=False)
    batches, (test_batch,) = list(dls.train), list(dls.valid.new(bs=dls.valid.n))
    return learn, list(map(channels_last, batches)), channels_last(test_batch)


def channels_last(batch):
    x, y = (part.as_subclass(torch.Tensor) for part in batch)
    return x.to(memory_format=torch.channels_last), y


def head_alone(split, architecture):
    """The default recipe: a head on the features of the frozen body."""
    learn = genre_learner(image_dataloaders(split), architecture)
    dls = feature_dataloaders(learn)
    return learn, list(dls.train), dls.valid.one_batch()


def whole(tracks, split, protocol, architecture):
    """Seconds from images to an exported learner with an empty cache; and plain fastai's."""
    times = {}
    with empty_features_cache() as folder:
        started = time.perf_counter()
        run = train_and_evaluate(tracks, protocol, architecture, "texture")
        times["default recipe (texture), with evaluation"] = time.perf_counter() - started
        export_learner(run, folder / "model")
        times["default recipe, with evaluation and export"] = time.perf_counter() - started
        started = time.perf_counter()
        train_and_evaluate(tracks, protocol, architecture, "frozen-head")
        times["ten frozen epochs (frozen-head), with evaluation"] = time.perf_counter() - started
        times["ten frozen epochs, plain fastai (one, times ten)"] = 10 * an_epoch_of_plain_fastai(
            split, architecture, folder
        )
    return [{"training": name, "seconds": round(seconds, 1)} for name, seconds in times.items()]


def an_epoch_of_plain_fastai(split, architecture, folder):
    """Seconds of one epoch as in fastai's first tutorial, on the same images."""
    for track in split[split["split"].isin(["train", "test"])].itertuples():
        target = folder / "plain" / PARTS[track.split] / track.genre
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(track.image, target)
    dls = ImageDataLoaders.from_folder(
        folder / "plain", item_tfms=Resize(224), bs=32, num_workers=0
    )
    learn = vision_learner(dls, get_architecture(architecture), metrics=accuracy)
    started = time.perf_counter()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
