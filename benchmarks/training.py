"""How near does fastai's loop come to the bare loop, and how long is a training?

python benchmarks/training.py [--architecture resnet34]    (needs GTZAN's pictures, or makes some)
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import torch
from bench import keep, median, plot_bars, take_turns
from fastai.vision.all import ImageDataLoaders, Learner, Resize, accuracy, vision_learner
from torch.nn.functional import cross_entropy

from melgenre import frozen, learner
from melgenre.collection import load_collection, project_folder
from melgenre.evaluation import held_out, predict_tracks, score
from melgenre.export import export_learner
from melgenre.frozen import feature_dataloaders, feature_folder
from melgenre.learner import describe_training, fit, genre_learner, picture_dataloaders
from melgenre.melspectrogram import extract_melspectrograms
from melgenre.networks import find_architecture
from melgenre.splits import PROTOCOLS, protocols_for


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="resnet34")
    options = parser.parse_args()
    tracks = load_collection("auto")
    pictures = project_folder() / "data" / "pictures" / tracks["collection"].iloc[0]
    tracks = extract_melspectrograms(tracks, pictures)
    protocol = protocols_for(tracks)[-1]
    split = PROTOCOLS[protocol](tracks)

    rows = [
        *loops("all layers", *all_layers(split, options.architecture), rounds=2),
        *loops("the head alone", *head_alone(split, options.architecture), rounds=5),
    ]
    collection = str(tracks["collection"].iloc[0])
    keep("training", rows, collection=collection)
    plot_bars("training", rows, "pictures a second", "pictures a second", log=True)
    keep("training_whole", whole(split, protocol, options.architecture), collection=collection)


def loops(what, learn, batches, epochs, rounds):
    """Pictures a second of fastai's loop and of the bare loop over the same batches."""
    model, pictures = learn.model, epochs * sum(len(y) for _, y in batches)

    def fastai():
        with learn.no_bar(), learn.no_logging():
            learn.fit(epochs, 1e-4)

    def bare():
        model.train()
        optimizer = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], 1e-4, fused=True
        )
        for _ in range(epochs):
            for x, y in batches:
                cross_entropy(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
        if x.is_cuda:
            torch.cuda.synchronize()

    seconds = take_turns({"fastai": fastai, "bare": bare}, rounds=rounds)
    share = median(seconds["bare"]) / median(seconds["fastai"])
    return [
        {
            "loop": f"{what}, {name}",
            "pictures a second": round(pictures / median(turns), 1),
            "share of the bare loop": round(share if name == "fastai" else 1, 3),
        }
        for name, turns in seconds.items()
    ]


def all_layers(split, architecture):
    """Fine-tuning: a learner of few pictures that watches none, and its batches on the device."""
    few = split[split["split"] == "train"].head(32)
    one = split[(split["split"] == "valid") & split["genre"].isin(few["genre"])].head(1)
    dls = picture_dataloaders(split.loc[[*few.index, *one.index]], batch_size=16)
    learn = genre_learner(dls, architecture, "fine-tune")
    learn.unfreeze()
    return learn, [(x.as_subclass(torch.Tensor), y.as_subclass(torch.Tensor))
                   for x, y in dls.train], 1  # fmt: skip


def head_alone(split, architecture):
    """The default recipe: a head that learns from the frozen body's features."""
    learn = genre_learner(picture_dataloaders(split), architecture)
    dls = feature_dataloaders(learn, feature_folder())
    head = Learner(dls, learn.model[1], loss_func=learn.loss_func, opt_func=learner.fused_adam,
                   metrics=accuracy)  # fmt: skip
    return head, [(x, y) for x, y in dls.train], 5


def whole(split, protocol, architecture):
    """Seconds from pictures to an exported learner, nothing kept; and stock fastai's training."""
    with tempfile.TemporaryDirectory() as folder:
        frozen.feature_folder = learner.feature_folder = lambda: Path(folder)
        times, started = {}, time.perf_counter()
        learn = genre_learner(picture_dataloaders(split), architecture)
        with learn.no_bar(), learn.no_logging():
            fit(learn)
        times["features and head"] = time.perf_counter() - started
        predictions = predict_tracks(learn, held_out(split))
        result = score(predictions, protocol, split=split)
        export_learner(learn, Path(folder, "model"), describe_training(learn, split), result,
                       predictions)  # fmt: skip
        times["with figures and export"] = time.perf_counter() - started

        for track in split[split["split"].isin(["train", "valid"])].itertuples():
            target = Path(folder, "stock", track.split, track.genre)
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(track.picture, target)
        dls = ImageDataLoaders.from_folder(
            Path(folder, "stock"), item_tfms=Resize(224), bs=32, num_workers=0
        )
        stock = vision_learner(dls, find_architecture(architecture), metrics=accuracy)
        started = time.perf_counter()
        with stock.no_bar(), stock.no_logging():
            stock.fit_one_cycle(1)
        times["stock fastai, ten epochs (one, times ten)"] = 10 * (time.perf_counter() - started)
    return [{"training": name, "seconds": round(seconds, 1)} for name, seconds in times.items()]


if __name__ == "__main__":
    main()
