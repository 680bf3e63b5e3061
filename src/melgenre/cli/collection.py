"""The commands for a collection: `extract` and `train`."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .. import parallel
from ..errors import MelgenreWarning, extra_packages
from ..text import escape_control, listed
from ..training.recipes import RECIPES, get_recipe
from .options import (
    SOME_FAILED,
    Cluster,
    Mel,
    Quiet,
    ShardOption,
    errors_as_messages,
    mel_settings,
    shard_and_output,
)


def extract(
    folder: Annotated[
        str, typer.Argument(help="Music in <genre>/<song>.mp3; also a URL such as s3://….")
    ],
    images: Annotated[str, typer.Argument(help="Folder for the mel-spectrograms, or a URL.")],
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Files of a thousand images each, not one PNG each.")
    ] = False,
    mel: Mel = None,
    shard: ShardOption = None,
    cluster: Cluster = None,
    quiet: Quiet = False,
) -> None:
    """Make one mel-spectrogram image (PNG) per song of a folder.

    Existing images are kept if their songs have not changed. The images of all shards are in one
    folder, and need no merge.
    """
    with errors_as_messages(), parallel.cluster(cluster):
        with extra_packages("train", "Making images"):
            from ..data.collection import find_tracks
            from ..features.images import extract_melspectrograms
            from ..features.shards import extract_shards
        settings = mel_settings(mel or ())
        tracks = find_tracks(folder).assign(image=None)
        part, _ = shard_and_output(shard, None)
        extract_all = extract_shards if parquet else extract_melspectrograms
        made = extract_all(tracks, images, settings=settings, shard=part, progress=not quiet)
    skipped = len(made.attrs["skipped"])
    print(f"{len(made)} of {len(made) + skipped} songs have an image in {escape_control(images)}.")
    if skipped:
        raise typer.Exit(SOME_FAILED)


def train(
    folder: Annotated[Path, typer.Argument(help="Music in <genre>/<song>.mp3, or GTZAN.")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")] = Path("models/mine"),
    architecture: Annotated[
        str, typer.Option(help="A network of torchvision or timm, by name.")
    ] = "resnet34",
    recipe: Annotated[
        str,
        typer.Option(
            help=f"One of {', '.join(RECIPES)}; or such as fine-tune@100; "
            "balanced-discriminant, … where some genres have far fewer songs than others."
        ),
    ] = "discriminant",
    seed: Annotated[int, typer.Option(help="Of the initial weights and the split.")] = 0,
    mel: Mel = None,
    quiet: Quiet = False,
) -> None:
    """Train a network on a folder of genres, evaluate it, and export it.

    Artists are separated if the folders are <genre>/<artist>/…, or if a tracks.csv in the folder
    names them. Songs have several genres if the tracks.csv has a column genres, as in rock;punk.
    `accelerate launch -m melgenre train …` trains on several GPUs.
    """
    with errors_as_messages(), _printed_once():
        with extra_packages("train", "Training"):
            from fastai.vision.all import noop

            from ..data.collection import describe_collection, load_collection
            from ..data.genres import is_multi_label
            from ..data.protocols import strictest_protocol
            from ..evaluation.metrics import format_score
            from ..experiments import train_and_evaluate
            from ..features.images import extract_melspectrograms, images_folder
            from ..inference.model_folder import check_replaceable
            from ..training.export import export_learner
        get_recipe(recipe)
        check_replaceable(out)  # before hours of training
        settings = mel_settings(mel or ())
        tracks = load_collection(folder, progress=not quiet)
        print(describe_collection(tracks))
        images = images_folder(tracks, settings)
        tracks = extract_melspectrograms(tracks, images, settings=settings, progress=not quiet)
        protocol = strictest_protocol(tracks)
        # fastai's own bar would fill a file that the output goes to.
        several = is_multi_label(tracks)
        metric = "average precision" if several else "accuracy"
        # `noop` also hides the bar of the features.
        log = noop if quiet else partial(_print_epoch, metric)
        run = train_and_evaluate(tracks, protocol, architecture, recipe, seed, log=log)
        export_learner(run, out)
        print(f"Genres:   {listed(run.learner.dls.vocab)}")
        print(f"Split:    {protocol}, {run.train_tracks} training tracks")
        print(f"{'Result:  ' if several else 'Accuracy:'} {format_score(run.result)}")
        print(_interpretation(protocol, "mean average precision" if several else "accuracy"))
        print(f"Exported to {out}: melgenre predict --model {out} SONG")


@contextmanager
def _printed_once() -> Iterator[None]:
    """Print from the first of several processes alone; errors are printed by all of them."""
    if os.environ.get("RANK", "0") == "0":  # set by `accelerate launch` and `torchrun`
        yield
        return
    warnings.simplefilter("ignore", MelgenreWarning)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def _print_epoch(name, record):
    """One line per epoch: its number, both losses, the metric and its time."""
    epoch, train, valid, metric, seconds = record
    print(
        f"epoch {epoch + 1:2}: training loss {train:.3f}, validation loss {valid:.3f}, "
        f"{name} {metric:.1%}, {seconds}",
        flush=True,
    )


def _interpretation(protocol, metric):
    """What a result under a protocol means, in a sentence."""
    if protocol == "random":
        return (
            f"The split is random: artists may be in both parts, and then the {metric} is "
            "optimistically biased. Put the songs into <genre>/<artist>/ to separate artists."
        )
    return f"No artist is in both parts: this is the {metric} on artists that are new to the model."
