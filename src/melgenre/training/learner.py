"""DataLoaders -> a fastai Learner of a recipe; a Learner -> predictions."""

import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pandas as pd
import torch
from fastai.vision.all import (
    APScoreMulti,
    BCEWithLogitsLossFlat,
    CrossEntropyLossFlat,
    DataLoaders,
    Learner,
    OptimWrapper,
    Recorder,
    accuracy,
    default_split,
    set_seed,
    vision_learner,
)

from ..data.genres import is_multi_label, one_row_per_genre
from ..data.mel_settings import MelSettings, check_images, image_settings
from ..data.table import probability_columns
from ..errors import MelgenreWarning
from ..evaluation.run import Run
from ..networks import (
    BUILT_IN,
    build_network,
    check_input_size,
    get_architecture,
    weights_source,
)
from .cached_features import predict_features
from .distributed import predict_alone
from .image_loader import test_images
from .multi_label import is_multi_label_learner, predicted_lists
from .recipes import FROM_SCRATCH, RecipeError, get_recipe

DOWNLOAD_SECONDS = 20
"""Until a host that does not answer counts as absent; torch.hub itself waits for minutes."""

WITH_BUILT_IN = (
    f"A smaller network is trained in its place: the first blocks of {BUILT_IN}, whose weights are "
    "in melgenre."
)
WITHOUT_WEIGHTS = (
    "The network is trained from scratch, which takes longer and gives a lower accuracy."
)


def genre_learner(
    dls: DataLoaders,
    architecture: str = "resnet34",
    recipe: str = "texture",
    *,
    pretrained: bool = True,
    seed: int = 0,
) -> Learner:
    """Make a fastai Learner for a recipe, with ImageNet weights if available.

    Of multi-label DataLoaders its loss is the binary cross-entropy of each genre, and its metric
    the average precision of all pairs of a song and a genre.

    Parameters
    ----------
    dls
        Of `melgenre.training.dataloaders.image_dataloaders`.
    architecture
        Any convolutional network of torchvision or timm, by name; or, for a recipe of textures,
        `melgenre.networks.BUILT_IN`, which needs no download.
    recipe
        A name in `melgenre.training.recipes.RECIPES`; `fine-tune@100` has 100 epochs, and
        `balanced-texture` is for genres of which some have far fewer tracks than others: see
        `get_recipe`.
    pretrained
        Start from ImageNet weights, downloaded once. If the download fails, a warning is given, and
        `melgenre.networks.BUILT_IN` takes the network's place, with the recipe that
        `Recipe.built_in` names; where it names none, the network is trained from scratch.
    seed
        Of the head's initial weights and the order of the images.

    Returns
    -------
    fastai.learner.Learner
        With a `Run` in `learn.training_run`, which records what it is made of.

    Raises
    ------
    ArchitectureError
        If the name is unknown, or the network does not accept images of this size.
    RecipeError
        If there is no such recipe.
    """
    get_recipe(recipe)  # before anything is downloaded
    set_seed(seed, reproducible=True)
    try:
        with _short_timeout():
            learn = _build(dls, architecture, recipe, pretrained=pretrained)
    except OSError as error:  # of the download: no connection, no such file, disk full
        if not pretrained:
            raise
        built_in = get_recipe(recipe).built_in
        warnings.warn(
            f"The ImageNet weights of {architecture} cannot be downloaded ({_cause(error)}). "
            + (WITH_BUILT_IN if built_in else WITHOUT_WEIGHTS)
            + " Run this again when online.",
            MelgenreWarning,
            stacklevel=2,
        )
        if built_in:
            return genre_learner(dls, BUILT_IN, built_in, seed=seed)
        return genre_learner(dls, architecture, recipe, pretrained=False, seed=seed)
    check_input_size(architecture, learn.model, *_image_size(dls))
    weights = weights_source(architecture) if pretrained else FROM_SCRATCH
    learn.training_run = _new_run(dls, architecture, recipe, weights, seed)
    return learn


def _build(dls, architecture, recipe, *, pretrained):
    """The learner of a recipe, with its body frozen if it is pretrained."""
    recipe, multi_label = get_recipe(recipe), is_multi_label(dls.train_ds.items)
    options = {
        "loss_func": _loss(dls, recipe, multi_label),
        "opt_func": adam(dls.device),
        # The micro average: the macro average needs songs of every genre in the validation set.
        "metrics": APScoreMulti(average="micro") if multi_label else accuracy,
        # Without `train_bn=False`, fastai would train the batch norms of a frozen body.
        "train_bn": not pretrained,
    }
    if recipe.body == "whole":
        network = get_architecture(architecture)
        learn = vision_learner(dls, network, pretrained=pretrained, normalize=False, **options)
    else:
        # fastai 2.8's `vision_learner` has a parameter `cut` and ignores it; so by its parts.
        shape = architecture, len(dls.vocab), recipe.body
        model = build_network(*shape, pretrained=pretrained, multi_label=multi_label)
        learn = Learner(dls, model, splitter=default_split, **options)
    # fastai moves the model when training begins; features are computed before that.
    learn.model.to(dls.device)
    learn.create_opt()
    if pretrained:
        learn.freeze()
    return learn.to_channelslast(use_amp=False)


def _loss(dls, recipe, multi_label):
    """The loss of a recipe."""
    weight = genre_weights(dls) if recipe.balanced else None
    if multi_label:
        return BCEWithLogitsLossFlat(pos_weight=weight)
    return CrossEntropyLossFlat(label_smoothing=recipe.smoothing, weight=weight)


def genre_weights(dls: DataLoaders) -> torch.Tensor:
    """The weight of each genre in a balanced loss [shape=(n_genres,)], with a mean of 1 per track.

    Where songs have several genres, it is that of the tracks with the genre, relative to those
    without it: both weigh the same together.

    Parameters
    ----------
    dls
        Of `melgenre.training.dataloaders.image_dataloaders`.
    """
    items = dls.train_ds.items
    genres = one_row_per_genre(items)["genre"]
    tracks = genres.value_counts().reindex(list(dls.vocab)).to_numpy()
    if is_multi_label(items):
        weights = (len(items) - tracks).clip(1) / tracks
    else:
        weights = len(genres) / (len(tracks) * tracks)
    return torch.tensor(weights, dtype=torch.float32, device=dls.device)


def adam(device: torch.device) -> Any:
    """torch's AdamW, in one kernel where the device has it: fastai's own takes twice as long."""
    fused = device.type in ("cpu", "cuda")
    return partial(OptimWrapper, opt=torch.optim.AdamW, fused=fused, eps=1e-5)


def _image_size(dls):
    """Height and width of the images."""
    batch_size, dls.train.bs = dls.train.bs, 1  # a large batch would fill the memory
    try:
        return dls.one_batch()[0].shape[-2:]
    finally:
        dls.train.bs = batch_size


def _new_run(dls, architecture, recipe, weights, seed):
    """The record of a training that has not begun."""
    items = dls.train_ds.items
    return Run(
        model=f"{architecture}, {recipe}",
        architecture=architecture,
        recipe=recipe,
        weights=weights,
        seed=seed,
        collection=str(items["collection"].iloc[0]) if "collection" in items else "unnamed",
        train_tracks=len(items),
        mel_settings=vars(image_settings(items["image"].iloc[0])),
    )


@contextmanager
def _short_timeout() -> Iterator[None]:
    """Short timeout for connections that set none themselves."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _cause(error):
    """The first line of an error, or its kind where it has no message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def is_frozen(learn: Learner) -> bool:
    """Whether only the head of a learner is trained, so that the body's features can be cached."""
    run = getattr(learn, "training_run", None)  # a learner made elsewhere has none
    try:
        return run is not None and run.weights != FROM_SCRATCH and not get_recipe(run.recipe).epochs
    except RecipeError:  # of another version
        return False


def predict_tracks(learn: Learner, tracks: pd.DataFrame) -> pd.DataFrame:
    """Predict the genre of each track.

    Parameters
    ----------
    learn
        Trained here, or of `load_exported`.
    tracks
        With `image`.

    Returns
    -------
    pd.DataFrame
        The tracks with `predicted` and a probability `p_<genre>` per genre. The probabilities of a
        multi-label learner are independent of each other, and `predicted` is the sorted list of the
        genres above their thresholds.

    Raises
    ------
    ImageError
        If an image was made with other settings than those that the learner was trained on.
    """
    _check_settings(learn, tracks)
    if is_frozen(learn):
        probabilities = predict_features(learn, tracks)
    else:
        dl = predict_alone(test_images(learn, tracks))
        recorders = [one for one in learn.cbs if isinstance(one, Recorder)]
        # Without the recorder, which would lose its record of the training.
        with learn.no_bar(), learn.no_logging(), learn.removed_cbs(recorders):
            probabilities, _ = learn.get_preds(dl=dl, reorder=False)
    genres = list(learn.dls.vocab)
    columns = pd.DataFrame(
        probabilities.numpy(), columns=probability_columns(genres), index=tracks.index
    )
    if is_multi_label_learner(learn):
        predicted = predicted_lists(learn, probabilities)
    else:
        predicted = [genres[i] for i in probabilities.argmax(dim=1).tolist()]
    return pd.concat([tracks.assign(predicted=predicted), columns], axis=1)


def _check_settings(learn, tracks):
    """Raise `ImageError` unless all images have the settings that the learner was trained on."""
    run = getattr(learn, "training_run", None)
    if run is not None and run.mel_settings is not None:
        check_images(tracks["image"], MelSettings(**run.mel_settings))
