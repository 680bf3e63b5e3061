"""How near does fastai's loop come to the bare loop, and how long is a training?

python benchmarks/training.py [--architecture resnet34]    (needs GTZAN's images, or makes some)
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import torch
from bench import keep, median, nothing_kept, plot_bars, take_turns, tracks_with_images
from fastai.vision.all import ImageDataLoaders, Resize, accuracy, vision_learner
from torch.nn.functional import cross_entropy

from melgenre.data.splits import PROTOCOLS, held_out, protocols_for
from melgenre.evaluation.metrics import evaluate
from melgenre.networks import get_architecture
from melgenre.training.cached_features import extract_features, feature_dataloaders, features_cache
from melgenre.training.export import export_learner
from melgenre.training.learner import (
    RECIPES,
    describe_training,
    fit,
    genre_learner,
    image_dataloaders,
    predict_tracks,
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="resnet34")
    options = parser.parse_args()
    tracks = tracks_with_images()
    protocol = protocols_for(tracks)[-1]
    split = PROTOCOLS[protocol](tracks)

    rows = [
        *loops("all layers", *all_layers(split, options.architecture)),
        *frozen_body(split, options.architecture),
        *loops("the head alone", *head_alone(split, options.architecture)),
    ]
    collection = str(tracks["collection"].iloc[0])
    keep("training", rows, collection=collection)
    plot_bars("training", rows, "images a second", "images a second", log=True)
    keep("training_whole", whole(split, protocol, options.architecture), collection=collection)


def loops(what, learn, batches, watched):
    """Images a second of `fit`, and of a bare loop over the same batches in memory."""
    recipe, device = RECIPES[learn.recipe], learn.dls.device.type
    epochs = recipe["epochs"] + recipe["freeze_epochs"]
    model = learn.model[1] if watched[0].ndim == 2 else learn.model

    def forward(x, y):
        with torch.autocast(device, enabled=device == "cuda"):
            return cross_entropy(model(x), y)

    def bare():
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
                forward(*watched)
        if device == "cuda":
            torch.cuda.synchronize()

    def fastai():
        with learn.no_bar(), learn.no_logging():
            fit(learn)

    return table(what, fastai, bare, epochs * sum(len(y) for _, y in batches))


def table(what, fastai, bare, images):
    """Images a second of a way and of the bare one, which take turns."""
    seconds = take_turns({"fastai": fastai, "bare": bare}, rounds=3)
    share = median(seconds["bare"]) / median(seconds["fastai"])
    return [
        {
            "loop": f"{what}, {name}",
            "images a second": round(images / median(turns), 1),
            "share of the bare loop": round(share if name == "fastai" else 1, 3),
        }
        for name, turns in seconds.items()
    ]


def frozen_body(split, architecture):
    """The default recipe's first half: what the frozen body says of each image, once."""
    learn = genre_learner(image_dataloaders(split), architecture)
    some, bs = (split, 32) if torch.cuda.is_available() else (split.head(128), 2)
    body = learn.model[0].to(memory_format=torch.channels_last)
    batches = [as_network_takes_it((x, x))[0] for (x,) in learn.dls.test_dl(some, bs=bs)]

    def fastai():
        with tempfile.TemporaryDirectory() as nothing_kept:
            extract_features(learn, some, nothing_kept)

    def bare():
        with torch.inference_mode():
            for x in batches:
                body(x).cpu()

    body.eval()
    return table("frozen body", fastai, bare, len(some))


def all_layers(split, architecture):
    """A network from scratch, and its batches on the device; few images where there is no GPU."""
    on_gpu = torch.cuda.is_available()
    RECIPES["all layers"] = RECIPES["smoke-test"] | {
        "freeze_epochs": 0,
        "epochs": 10 if on_gpu else 1,
    }
    if not on_gpu:
        few = split[split["split"] == "train"].head(64)
        one = split[(split["split"] == "valid") & split["genre"].isin(few["genre"])].head(4)
        split = split.loc[[*few.index, *one.index]]
    dls = image_dataloaders(split)
    learn = genre_learner(dls, architecture, "all layers", pretrained=False)
    batches, (watched,) = list(dls.train), list(dls.valid.new(bs=dls.valid.n))
    return learn, list(map(as_network_takes_it, batches)), as_network_takes_it(watched)


def as_network_takes_it(batch):
    x, y = (part.as_subclass(torch.Tensor) for part in batch)
    return x.to(memory_format=torch.channels_last), y


def head_alone(split, architecture):
    """The default recipe: a head that learns from the frozen body's features."""
    learn = genre_learner(image_dataloaders(split), architecture)
    dls = feature_dataloaders(learn, features_cache())
    return learn, list(dls.train), dls.valid.one_batch()


def whole(split, protocol, architecture):
    """Seconds from images to an exported learner, nothing kept; and stock fastai's training."""
    times = {}
    with nothing_kept() as folder:
        started = time.perf_counter()
        learn = train(split, architecture, "texture")
        times["default recipe (texture)"] = time.perf_counter() - started
        predictions = predict_tracks(learn, held_out(split))
        result = evaluate(predictions, protocol, split=split)
        export_learner(learn, Path(folder, "model"), describe_training(learn, split), result,
                       predictions)  # fmt: skip
        times["default recipe, with figures and export"] = time.perf_counter() - started
        started = time.perf_counter()
        train(split, architecture, "frozen-head")
        times["ten frozen epochs (frozen-head)"] = time.perf_counter() - started
        times["ten frozen epochs, stock fastai (one, times ten)"] = 10 * an_epoch_of_stock_fastai(
            split, architecture, Path(folder)
        )
    return [{"training": name, "seconds": round(seconds, 1)} for name, seconds in times.items()]


def train(split, architecture, recipe):
    learn = genre_learner(image_dataloaders(split), architecture, recipe)
    with learn.no_bar(), learn.no_logging():
        fit(learn)
    return learn


def an_epoch_of_stock_fastai(split, architecture, folder):
    """Seconds of one epoch as fastai's first tutorial has it, from the same images."""
    for track in split[split["split"].isin(["train", "valid"])].itertuples():
        target = folder / "stock" / track.split / track.genre
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(track.image, target)
    dls = ImageDataLoaders.from_folder(
        folder / "stock", item_tfms=Resize(224), bs=32, num_workers=0
    )
    learn = vision_learner(dls, get_architecture(architecture), metrics=accuracy)
    started = time.perf_counter()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
