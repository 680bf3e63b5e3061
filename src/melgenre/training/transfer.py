"""Transfer learning: a learner for other genres, initialised from an exported model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors
from safetensors.torch import load

from ..data.mel_settings import MelSettings
from ..inference.model_folder import WEIGHTS, ModelError, damaged_model, read_checked, read_config
from .learner import genre_learner
from .recipes import RECIPES, RecipeError, get_recipe

if TYPE_CHECKING:
    from fastai.vision.all import DataLoaders, Learner


def transfer_learner(dls: DataLoaders, folder: str | Path, *, seed: int = 0) -> Learner:
    """A learner with the weights of an exported model in place of ImageNet's.

    All layers but the last keep the model's weights. In the last layer, the weights of genres that
    the model has under the same name are kept; those of other genres are new.

    Parameters
    ----------
    dls
        Made by `melgenre.training.dataloaders.image_dataloaders`, from images with the settings of
        the model's.
    folder
        Written by `melgenre.training.export.export_learner`.
    seed
        Of the initial weights of new genres and the order of the images.

    Returns
    -------
    fastai.learner.Learner
        As made by `melgenre.training.learner.genre_learner`; `fit` trains it by the model's recipe.

    Raises
    ------
    ModelError
        If the model is missing or damaged, or its recipe is unknown.
    """
    folder = Path(folder)
    config = read_config(folder)
    training = config["training"]
    try:
        get_recipe(training.get("recipe", "none"))
    except RecipeError as error:
        raise ModelError(
            f"{folder.name} was trained by a recipe {training.get('recipe')!r} that is unknown. "
            f"Use a model that was trained by one of these: {', '.join(RECIPES)}."
        ) from error
    learn = genre_learner(
        dls, config["architecture"], training["recipe"], pretrained=False, seed=seed
    )
    images = MelSettings(**learn.training_run.mel_settings)
    MelSettings(**config["mel_settings"]).check_same(images, "The set of images")
    weights = read_checked(folder, config, WEIGHTS)
    try:
        learn.model.load_state_dict(_load_matching_weights(learn, load(weights), config["genres"]))
    except (OSError, safetensors.SafetensorError, RuntimeError, KeyError) as error:
        raise damaged_model(folder, error) from error
    learn.train_bn = False  # as with ImageNet weights: the statistics of batch norms are kept
    learn.freeze()
    weights = (
        f"{training['weights']}, then {training['train_tracks']} tracks of {training['collection']}"
    )
    learn.training_run = replace(learn.training_run, weights=weights)
    return learn


def _load_matching_weights(learn, weights, genres):
    """The model's weights; in the last layer, those of genres that it does not have stay new."""
    last = f"1.{len(learn.model[1]) - 1}."
    for name, new in learn.model.state_dict().items():
        if name.startswith(last) and new.ndim:
            old, weights[name] = weights[name], new.cpu().clone()
            for row, genre in enumerate(learn.dls.vocab):
                if genre in genres:
                    weights[name][row] = old[genres.index(genre)]
    return weights
