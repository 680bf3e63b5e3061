"""An exported model -> a learner for genres of your own, which starts from what the model knows."""

from dataclasses import replace
from pathlib import Path

import safetensors
from safetensors.torch import load

from ..data.mel_settings import MelSettings
from ..inference.model_folder import WEIGHTS, ModelError, damaged_model, read_checked, read_config
from .learner import genre_learner
from .recipes import RECIPES


def transfer_learner(dls, folder, *, seed=0):
    """A learner that starts from an exported model's weights instead of ImageNet's.

    Everything is taken over but the last layer; of that, the part of each genre that the model
    knows by the same name.

    Parameters
    ----------
    dls : fastai.data.core.DataLoaders
        Of `melgenre.training.learner.image_dataloaders`, with images as the model knows them.
    folder : str or Path
        Of `melgenre.training.export.export_learner`.
    seed : int
        Of the new genres' first weights and the order of the images.

    Returns
    -------
    fastai.learner.Learner
        As `melgenre.training.learner.genre_learner` gives it, for `fit` by the model's own recipe.

    Raises
    ------
    ModelError
        If the model is missing or damaged, or its recipe is unknown here.
    """
    folder = Path(folder)
    config = read_config(folder)
    training = config["training"]
    if training.get("recipe") not in RECIPES:
        raise ModelError(
            f"{folder.name} was trained by a recipe {training.get('recipe')!r} that is unknown "
            f"here. Start from a model of one of these: {', '.join(RECIPES)}."
        )
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
    learn.train_bn = False  # as with a body from ImageNet: its batch norms stay as they are
    learn.freeze()
    weights = (
        f"{training['weights']}, then {training['train_tracks']} tracks of {training['collection']}"
    )
    learn.training_run = replace(learn.training_run, weights=weights)
    return learn


def _load_matching_weights(learn, weights, known):
    """The model's weights; in the last layer, those of genres it does not know stay new."""
    last = list(learn.model.state_dict())[-1].rpartition(".")[0]
    for name, new in learn.model.state_dict().items():
        if name.startswith(f"{last}."):
            old, weights[name] = weights[name], new.cpu().clone()
            for row, genre in enumerate(learn.dls.vocab):
                if genre in known:
                    weights[name][row] = old[known.index(genre)]
    return weights
