"""The table of tracks -> DataLoaders -> a fastai Learner, trained by a recipe.

A few of fastai's own calls, with the choices that pictures of music need: nothing is resized,
squeezed or flipped, since up and down is pitch and left and right is time.
"""

import socket
import time
import warnings
from contextlib import contextmanager
from functools import partial

import pandas as pd
import torch
from fastai.vision.all import (
    CategoryBlock,
    ColReader,
    ColSplitter,
    CrossEntropyLossFlat,
    DataBlock,
    DataLoaders,
    ImageBlock,
    Learner,
    Normalize,
    OptimWrapper,
    ProgressCallback,
    accuracy,
    default_split,
    set_seed,
    to_device,
    vision_learner,
)

from ..data.mel_settings import MelSettings, check_image
from ..data.splits import SplitError
from ..evaluation.provenance import package_versions
from ..networks import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    build_network,
    check_input_size,
    get_architecture,
    weights_source,
)
from .cached_features import (
    feature_dataloaders,
    features_cache,
    predict_features,
    tensor_dataloader,
)
from .checkpoint import Checkpoint, checkpoint_file
from .precision import (
    device_name,
    feature_dtype,
    mixed_precision,
    one_thread,
    precision_name,
    training_dtype,
)

FROM_SCRATCH = "none (from scratch)"
RECIPES = {
    # Textures of the early layers as ImageNet left them, and a head that learns from these.
    "texture": {"body": "texture", "freeze_epochs": 30, "epochs": 0, "smoothing": 0.1},
    # Ten epochs of the head alone, on the last layer's features as ImageNet left them.
    "frozen-head": {"body": "whole", "freeze_epochs": 10, "epochs": 0, "smoothing": 0.0},
    # The head first, then all layers, the early ones more gently (fastai's `fine_tune`).
    "fine-tune": {"body": "whole", "freeze_epochs": 10, "epochs": 3, "smoothing": 0.0},
    # A look at whether everything runs: what `make run` uses on synthetic music.
    "smoke-test": {"body": "whole", "freeze_epochs": 1, "epochs": 3, "smoothing": 0.0},
}
"""The kind of body (see `melgenre.networks.build_network`), epochs with it frozen, epochs of all
layers after them, and label smoothing."""


def adam(device):
    """torch's Adam, in one kernel where the device has it: fastai's own takes twice as long."""
    fused = device.type in ("cpu", "cuda")
    return partial(OptimWrapper, opt=torch.optim.AdamW, fused=fused, eps=1e-5)


def image_dataloaders(tracks, *, settings=MelSettings(), batch_size=32):
    """fastai's DataLoaders of a table of tracks.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `image`, `genre` and `split`: `train` is learned from, `valid` is watched; tracks
        of another split or none are left out.
    settings : MelSettings
        What the images must have been made with.
    batch_size : int
        Fewer where that would leave less than eight batches an epoch.

    Returns
    -------
    fastai.data.core.DataLoaders
        Batches [shape=(batch, 3, n_mels, columns)], normalised as ImageNet is.

    Raises
    ------
    ImageError
        If an image was made with other settings.
    SplitError
        If there is nothing to learn from or to watch, or a genre is watched but never learned.
    """
    used = tracks[tracks["split"].isin(["train", "valid"])]
    used = used.assign(is_valid=used["split"] == "valid")
    learned = set(used.loc[used["split"] == "train", "genre"])
    watched = set(used.loc[used["split"] == "valid", "genre"])
    if not learned or not watched or watched - learned:
        raise SplitError(
            f"{len(learned)} genres to learn from and {len(watched)} to watch, "
            f"{len(watched - learned)} of these never learned: split the tracks anew."
        )
    for image in used["image"]:
        check_image(image, settings)
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=sorted(learned))),
        get_x=ColReader("image"),
        get_y=ColReader("genre"),
        splitter=ColSplitter("is_valid"),
        batch_tfms=Normalize.from_stats(IMAGENET_MEAN, IMAGENET_STD),
    )
    # An image takes a millisecond to read: worker processes would only take time to start.
    n_train = int((used["split"] == "train").sum())
    return block.dataloaders(used, bs=min(batch_size, max(4, n_train // 8), n_train), num_workers=0)


def genre_learner(dls, architecture="resnet34", recipe="texture", *, pretrained=True, seed=0):
    """fastai's `vision_learner` as a recipe wants it, from ImageNet weights where they can be had.

    Parameters
    ----------
    dls : fastai.data.core.DataLoaders
        Of `image_dataloaders`.
    architecture : str
        Any convolutional network of torchvision or timm, by name.
    recipe : str
        A name in `RECIPES`.
    pretrained : bool
        Start from ImageNet weights, downloaded once. Where that fails, a warning says so and the
        network starts from nothing.
    seed : int
        Of the head's first weights and the order of the images.

    Returns
    -------
    fastai.learner.Learner
        `learn.architecture` and `learn.weights` say what it is made of.

    Raises
    ------
    ArchitectureError
        If the name is unknown, or the network takes no images of this shape.
    """
    found = get_architecture(architecture)
    set_seed(seed, reproducible=True)
    body = RECIPES[recipe]["body"]
    loss = CrossEntropyLossFlat(label_smoothing=RECIPES[recipe]["smoothing"])

    def build(pretrained):
        options = {"loss_func": loss, "opt_func": adam(dls.device), "metrics": accuracy}
        # Without `train_bn=False`, fastai's frozen body would learn its batch norms.
        options["train_bn"] = not pretrained
        if body == "whole":
            learn = vision_learner(dls, found, pretrained=pretrained, normalize=False, **options)
        else:
            # fastai 2.8's `vision_learner` takes a `cut`, and drops it; this is what it would do.
            model = build_network(architecture, len(dls.vocab), body, pretrained=pretrained)
            learn = Learner(dls, model, splitter=default_split, **options)
        # fastai moves the model when training begins; features are computed before that.
        learn.model.to(dls.device)
        learn.create_opt()
        if pretrained:
            learn.freeze()
        return learn.to_channelslast(use_amp=False)

    if pretrained:
        try:
            with _short_timeout():
                learn = build(True)
            weights = weights_source(architecture)
        except Exception as error:  # torch.hub, timm and their hosts fail in many ways
            learn, weights = build(False), FROM_SCRATCH
            cause = (str(error).splitlines() or [type(error).__name__])[0]
            warnings.warn(
                f"No ImageNet weights for {architecture} ({cause}). It trains from scratch, which "
                "takes longer and ends lower; with a network, run this again.",
                stacklevel=2,
            )
    else:
        learn, weights = build(False), FROM_SCRATCH
    height, width = dls.one_batch()[0].shape[-2:]
    check_input_size(architecture, learn.model, height, width)
    learn.architecture, learn.weights = architecture, weights
    learn.recipe, learn.seed = recipe, seed
    return learn


@contextmanager
def _short_timeout(seconds=20):
    """Give up on a silent host soon: torch.hub itself would wait for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def fit(learn):
    """Train by the learner's recipe; a network from scratch trains all layers throughout.

    Where the body stays frozen, its features are computed once and kept in `data/features`, and
    the head learns from these: the second training takes seconds. Where all layers learn, the
    images are read once, and stay on the device for as long as it takes; the state after each
    epoch is kept in `data/checkpoints` until the learner is exported (`discard_checkpoint`), and
    the same training resumes from it.

    Parameters
    ----------
    learn : fastai.learner.Learner
        Of `genre_learner`.
    """
    started, before = time.perf_counter(), 0
    learn.frozen = learn.weights != FROM_SCRATCH and not RECIPES[learn.recipe]["epochs"]
    if learn.frozen:
        _fit_head(learn)
    else:
        before = _fit_all_layers(learn)
    learn.seconds = round(time.perf_counter() - started + before, 1)


def _fit_head(learn):
    """Let the head learn from the frozen body's features."""
    dls = feature_dataloaders(learn, features_cache())
    head = Learner(
        dls, learn.model[1], loss_func=learn.loss_func, opt_func=learn.opt_func, metrics=accuracy
    )
    head.logger = learn.logger
    if not hasattr(learn, "progress"):  # inside `learn.no_bar()`
        head.remove_cb(ProgressCallback)
    with one_thread():
        head.fit_one_cycle(RECIPES[learn.recipe]["freeze_epochs"])


def _fit_all_layers(learn):
    """Train all layers on images that are read once; the seconds of a run that is resumed."""
    epochs, freeze_epochs = (RECIPES[learn.recipe][key] for key in ("epochs", "freeze_epochs"))
    learn.checkpoint_file = checkpoint_file(learn)
    checkpoint, from_files = Checkpoint(learn.checkpoint_file), learn.dls
    learn.dls = DataLoaders(*map(_preload, from_files.loaders), device=from_files.device)
    try:
        with mixed_precision(learn), learn.added_cbs(checkpoint):
            if learn.weights == FROM_SCRATCH:
                learn.fit_one_cycle(freeze_epochs + epochs, 3e-3)
            else:
                learn.fine_tune(epochs, freeze_epochs=freeze_epochs)
    finally:
        learn.dls = from_files
    return checkpoint.seconds


def discard_checkpoint(learn):
    """Delete the checkpoint of a training whose result is kept elsewhere.

    Parameters
    ----------
    learn : fastai.learner.Learner
        Trained by `fit`.
    """
    if hasattr(learn, "checkpoint_file"):
        learn.checkpoint_file.unlink(missing_ok=True)


def _preload(dl):
    """The same batches, from images that are read now and lie on the device."""
    images, genres = to_device(dl.create_batch([dl.do_item(i) for i in range(dl.n)]), dl.device)
    return tensor_dataloader(dl, images, genres)


def describe_training(learn, tracks):
    """What a figure or an exported model must say of where it comes from.

    Parameters
    ----------
    learn : fastai.learner.Learner
        Trained by `fit`.
    tracks : pd.DataFrame
        What its DataLoaders were made of.

    Returns
    -------
    dict
        `model` (architecture and recipe), `architecture`, `weights`, `recipe`, `seed`,
        `seconds`, `collection`, `train_tracks`, `device`, `precision` and (CPU) `threads` of the
        training, `versions`.
    """
    device = learn.dls.device
    dtype = (feature_dtype if learn.frozen else training_dtype)(device.type)
    return {
        "model": f"{learn.architecture}, {learn.recipe}",
        "architecture": learn.architecture,
        "weights": learn.weights,
        "recipe": learn.recipe,
        "seed": learn.seed,
        "seconds": learn.seconds,
        "collection": str(tracks["collection"].iloc[0]) if "collection" in tracks else "unnamed",
        "train_tracks": len(learn.dls.train_ds),
        "device": device_name(device),
        "precision": precision_name(dtype),
        "threads": 1 if learn.frozen else torch.get_num_threads(),
        "versions": package_versions(),
    }


def predict_tracks(learn, tracks):
    """Let a learner say the genre of each track's image.

    Parameters
    ----------
    learn : fastai.learner.Learner
        Trained here or loaded with `load_learner`.
    tracks : pd.DataFrame
        With `image`.

    Returns
    -------
    pd.DataFrame
        The tracks with `predicted` and a probability `p_<genre>` for each genre.
    """
    if getattr(learn, "frozen", False):
        probabilities = predict_features(learn, tracks, features_cache())
    else:
        with learn.no_bar(), learn.no_logging():
            probabilities, _ = learn.get_preds(dl=learn.dls.test_dl(tracks, num_workers=0))
    genres = list(learn.dls.vocab)
    columns = pd.DataFrame(
        probabilities.numpy(), columns=[f"p_{genre}" for genre in genres], index=tracks.index
    )
    predicted = [genres[i] for i in probabilities.argmax(dim=1).tolist()]
    return pd.concat([tracks.assign(predicted=predicted), columns], axis=1)
